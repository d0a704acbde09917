"""YAML as the run reads it: 1.2, strict, bounded; and what is written reads back as the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.strict_yaml import read_file, read_text, write_text

SCALARS: list[tuple[str, object]] = [
    ("1e-4", 0.0001),  # text to YAML 1.1
    ("3E5", 300000.0),
    ("+1.5e+3", 1500.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("-.inf", -math.inf),
    (".INF", math.inf),
    ("12", 12),
    ("+3", 3),
    ("010", 10),  # 8 to YAML 1.1
    ("0o17", 15),
    ("0x1F", 31),
    ("1:30", "1:30"),  # 90 to YAML 1.1
    ("1_000", "1_000"),
    ("2020-01-01", "2020-01-01"),  # a date to YAML 1.1
    ("true", True),
    ("FALSE", False),
    ("~", None),
    ("", None),
    ("'no'", "no"),
    ("'1e-4'", "1e-4"),
    ("!!str 1", "1"),
    ("!!float 1", 1.0),
    ("n", "n"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    read = read_text(f"a: {text}", "here")["a"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(read_text("a: .NaN", "here")["a"])


def test_merge_keys_are_defaults() -> None:
    text = "a: &a {k: 0, z: 1}\nx: {b: &b {<<: *a, k: 1}}\nc: {<<: *b, z: 3}\nd: {<<: [*a, *b]}"
    # in `d` the first of the two wins; `b` is read before `c` merges it
    assert read_text(text, "here") == {
        "a": {"k": 0, "z": 1},
        "x": {"b": {"k": 1, "z": 1}},
        "c": {"k": 1, "z": 3},
        "d": {"k": 0, "z": 1},
    }


TENFOLD = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True))

CHAIN = "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(200))  # flat to look at

REFUSED: list[tuple[str, str]] = [
    ("a: Off", "here line 1: 'Off' is a truth value to some YAML readers"),
    ("a: 1\nb: 2\na: 3", "here line 3: duplicate key 'a', first given in line 1"),
    ("'a': 1\na: 2", "here line 2: duplicate key 'a', first given in line 1"),
    ("a: {<<: {b: 1}, <<: {c: 1}}", "here line 1: duplicate key '<<'"),
    ("a: [\n  {b: 1, b: 2}]", "here line 2: duplicate key 'b'"),
    ("a: !foo {b: 1}", "here line 1: the tag '!foo' is not known"),
    ("a: !!binary aGk=", "here line 1: the tag 'tag:yaml.org,2002:binary' is not known"),
    ("a: !!timestamp 2001-01-01", "is not known"),
    ("a: !!int x", "here line 1: this is no int"),
    ("a: !!int [1]", "here line 1: this is no int"),
    ("a: !!bool x", "here line 1: this is no bool"),
    ("a: !!seq {b: 1}", "here line 1: expected a sequence node, but found mapping"),
    ("a: 'x", "here line 1: while scanning a quoted scalar, found unexpected end of stream"),
    ("a: 1\n---\nb: 2", "here line 2: expected a single document"),
    ("\ta: 1", "here line 1: while scanning for the next token"),
    ("a: *b", "here line 1: found undefined alias 'b'"),
    ("a: &x [*x]", "here line 1: an alias inside what it names"),
    ("a:\n  - {[1]: 2}", "here line 2: a key must be a single word"),
    ("a: 1\nb: \x01", "here line 2: a character that YAML does not allow"),
    ("a: " + "9" * 5000, "here line 1: this number is too long"),
    ("[" * 1200, "here line 1: nested too deep to be read; at most 100"),
    (f"a: &a [{', '.join('1' * 10)}]\n{TENFOLD}", "here line 5: more than 100,000 values"),
    ("a: 1\nb: " + "[" * 101 + "]" * 101, "here line 2: nested too deep to be read"),
    (f"a0: &a0 [1]\n{CHAIN}", "here line 100: nested too deep to be read"),
    ('a: 1\nb: "\\ud800"', "here line 2: half a character"),
    ('"\\udfff": 1', "here line 1: half a character"),
    ("<<: 3", "here line 1: while constructing a mapping, expected a mapping"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_plain_configuration_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_text(text, "here")
    assert says in str(error.value)


def test_files_are_utf_8_mappings_of_a_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffname: é".encode())
    assert read_file(path) == {"name": "é"}
    for content, says in [
        (b"a: 1\nb: \xff", "a.yaml line 2: not UTF-8 text"),
        (b"a: " + b"x" * 1_000_000, "larger than 1,000,000 bytes"),
        (b"- 1", r"a configuration is a mapping \(key: value\), got \[1\]"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=says):
            read_file(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_file(tmp_path)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
    | st.sampled_from(
        [text for text, _ in SCALARS] + ["no", "<<", "off", "a: b", "# c", "- d", "null", "=", "&a"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abno<", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(plain)
def test_what_is_written_reads_back_as_the_same(value: Any) -> None:
    read = read_text(write_text({"value": value}), "here")["value"]
    assert read == value
    assert repr(read) == repr(value)  # 1 is not 1.0, nor True


def test_writing_repeats_what_is_shared() -> None:
    shared = {"lr": 1}
    assert write_text({"a": shared, "b": shared}) == "a:\n  lr: 1\nb:\n  lr: 1\n"
