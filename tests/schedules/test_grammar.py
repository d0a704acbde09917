"""The grammar: what a schedule prints is read back; what is wrong is refused with its place."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    FeedbackSchedule,
    Linear,
    Schedule,
    Sequence,
    Warmup,
)
from optimscheduler.schedules.grammar import AnySchedule, read_schedule
from tests.cases import (
    CASES,
    FORMS,
    HEARD,
    Alternating,
    Case,
    HalvedWhenWorse,
    Heard,
    feedback_schedules,
    schedules,
)

WHERE = "optim_sches.conf.schedule"


def refusal(value: object) -> str:
    """The message, without the place it must begin with."""
    with pytest.raises(ConfigError) as caught:
        read_schedule(value, WHERE)
    message = str(caught.value)
    assert message.startswith(WHERE)
    return message.removeprefix(WHERE)


def as_mapping(value: object) -> object:
    """A schedule as nested `{type, conf}`, as a YAML file would hold it."""
    if isinstance(value, Schedule | FeedbackSchedule):
        arguments = [f.name for f in dataclasses.fields(value) if f.init]  # type: ignore[arg-type]
        conf = {name: as_mapping(getattr(value, name)) for name in arguments}
        own = type(value).__name__ not in SCHEDULES
        return {"type": f"tests.cases.{type(value).__name__}" if own else type(value).__name__, "conf": conf}
    return [as_mapping(part) for part in value] if isinstance(value, tuple) else value


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, *HEARD], ids=lambda case: case.written)
def test_every_case_reads_back_from_its_text_and_from_mappings(case: Case | Heard) -> None:
    assert read_schedule(case.written, WHERE) == case.schedule
    assert read_schedule(as_mapping(case.schedule), WHERE) == case.schedule


@given(schedules() | feedback_schedules())
def test_the_repr_of_any_schedule_reads_back_as_the_same_schedule(schedule: AnySchedule) -> None:
    read = read_schedule(repr(schedule), WHERE)
    assert read == schedule
    assert repr(read) == repr(schedule)


@given(schedules() | feedback_schedules())
def test_nested_type_and_conf_say_the_same_as_the_text(schedule: AnySchedule) -> None:
    assert read_schedule(as_mapping(schedule), WHERE) == schedule


def test_an_object_is_returned_as_it_is() -> None:
    for schedule in (Cosine(steps=9), HalvedWhenWorse()):
        assert read_schedule(schedule, WHERE) is schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Cosine( steps = 9 , )\n", Cosine(steps=9)),
        ("Warmup(steps=3,\n       then=Constant(),  # to the end\n)", Warmup(steps=3, then=Constant())),
        ("Constant(value=1e-3)", Constant(0.001)),
        ("Cosine(steps=4_000)", Cosine(steps=4000)),
        ("Cosine(steps=4e3)", Cosine(steps=4000)),
        ("Warmup(steps=3, shape='power', then=Constant())", Warmup(steps=3, shape="power", then=Constant())),
        ("Sequence(([Constant(), 3],), last=Constant())", Sequence([(Constant(), 3)], Constant())),
        ("Sequence(phases=[], last=Constant())", Sequence([], Constant())),
        ("optimscheduler.schedules.Cosine(steps=9)", Cosine(steps=9)),
        ("tests.cases.Alternating()", Alternating()),
        ("tests.cases.HalvedWhenWorse(by=0.1)", HalvedWhenWorse(by=0.1)),
        ({"type": "Constant"}, Constant()),
        ({"type": "Constant", "conf": None}, Constant()),
        ({"type": "tests.cases.HalvedWhenWorse", "conf": {"by": 0.1}}, HalvedWhenWorse(by=0.1)),
        (
            {"type": "Warmup", "conf": {"steps": 3, "then": " Constant(0.5) "}},
            Warmup(steps=3, then=Constant(0.5)),
        ),
        ({"type": "Warmup", "conf": {"steps": 3, "then": Constant()}}, Warmup(steps=3, then=Constant())),
        (
            {"type": "Sequence", "conf": {"phases": [["Linear(steps=3)", 3]], "last": {"type": "Constant"}}},
            Sequence([(Linear(steps=3), 3)], Constant()),
        ),
    ],
)
def test_forms_that_people_write(text: object, expected: object) -> None:
    assert read_schedule(text, WHERE) == expected


def test_values_arrive_with_their_type(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, object] = {}

    class Anything(Schedule):
        def __init__(self, *, value: object) -> None:
            got["value"] = value

        def __call__(self, step: int) -> float:
            return float(step)

    monkeypatch.setattr("tests.cases.Anything", Anything, raising=False)
    for text, value in {
        "True": True,
        "None": None,
        "-3": -3,
        "-1e-3": -0.001,
        "7": 7,
        "'a'": "a",
        "(1, 'b')": (1, "b"),
        "[(), [False]]": [(), [False]],
    }.items():
        read_schedule(f"tests.cases.Anything(value={text})", WHERE)
        assert got["value"] == value
        assert type(got["value"]) is type(value)


# --- refusing -----------------------------------------------------------------------------------------------

# The nearest first, then twelve in all by name.
NEAR_COSINE = (
    "Did you mean 'Cosine'? Known: Cosine, Clamp, Constant, CoolDown, CosineRestarts, Custom, Cyclic, "
    "Exponential, InfiniteCosine, InverseSqrt, Linear, MultiStep, and 15 more."
)
KNOWN = (
    "Known: Clamp, Constant, CoolDown, Cosine, CosineRestarts, Custom, Cyclic, Exponential, InfiniteCosine, "
    "InverseSqrt, Linear, MultiStep, and 15 more."
)
ALLOWED = "A schedule is written with names, numbers, quoted text, lists, tuples and calls"
EXAMPLE = "like 'Warmup(steps=100, then=Cosine(steps=900))'"

REFUSED: list[tuple[object, str]] = [
    # names
    ("Cosin(steps=9)", f": there is no Schedule or FeedbackSchedule 'Cosin'. {NEAR_COSINE}"),
    ("Cosin", f": there is no Schedule or FeedbackSchedule 'Cosin'. {NEAR_COSINE}"),
    (
        "Warmup(steps=3, then=Cosin(steps=9))",
        f", column 22: there is no Schedule or FeedbackSchedule 'Cosin'. {NEAR_COSINE}",
    ),
    ("Constant", ": Constant alone says too little; for a schedule write Constant(), with its arguments"),
    (
        "optimscheduler.schedules.Cosine",
        ": optimscheduler.schedules.Cosine alone says too little; for a schedule write "
        "optimscheduler.schedules.Cosine(), with its arguments",
    ),
    (
        "Warmup(steps=3, then=Constant)",
        ', column 22: Constant alone says too little; for a schedule write Constant(), for text "Constant"',
    ),
    (
        "Warmup(steps=3, then=Constant(), shape=cosine)",
        ', column 40: cosine alone says too little; for a schedule write cosine(), for text "cosine"',
    ),
    ("Exponential(gamma=0.5, staircase=true)", ", column 34: write True instead of true"),
    ("Cosine(steps=null)", ", column 14: write None instead of null"),
    (Constant, ": this is the class alone; write Constant(), with its arguments"),
    (
        "math.sqrt()",
        ": 'math.sqrt' is of type builtin_function_or_method, but needed here: Schedule or FeedbackSchedule",
    ),
    (
        "no_such.Thing()",
        ": there is no module 'no_such' (wanted for 'no_such.Thing'). "
        "Is it installed, or beside the configuration file?",
    ),
    # arguments
    ("Cosine(step=9)", ": Cosine takes no 'step'. Did you mean 'steps'? Known: floor, steps."),
    ("Cosine()", ": Cosine needs 'steps', which is missing"),
    (
        "Cosine(9)",
        ", column 8: Cosine takes no arguments without a name; write the name before it. "
        "Known: floor, steps.",
    ),
    (
        "Product(Constant(), Constant(), Constant())",
        ", column 33: Product takes 2 arguments without a name; write the name before it. Known: a, b.",
    ),
    ("Cosine(steps=3, steps=4)", ", column 17: Cosine is given 'steps' twice"),
    ("Product(Constant(), a=Constant())", ", column 21: Product is given 'a' twice"),
    ("Cosine(steps=0)", ": Cosine: steps must be a whole number of real steps >= 1, got 0"),
    (
        "Cosine(steps='9')",
        f": Cosine: steps must be a whole number of real steps >= 1, {FORMS}, got '9'; "
        "write it without quotes",
    ),
    ("Constant(1e999)", ": Constant: value must be a finite number >= 0, got inf"),
    (
        "Warmup(steps=3,\n  then=Cosine(steps=0))",
        ", line 2, column 8: Cosine: steps must be a whole number of real steps >= 1, got 0",
    ),
    ("Warmup(steps=3, then=2)", ": Warmup: then must be a schedule, got 2"),
    (
        "Warmup(steps=3, then=Warmup(steps=1, then=tests.cases.HalvedWhenWorse()))",
        ": Warmup: then cannot be Warmup, which listens to a metric: "
        "a feedback schedule stands alone, or as `then` of a Warmup",
    ),
    # syntax
    ("", f" is empty; write a schedule {EXAMPLE}"),
    (" \n ", f" is empty; write a schedule {EXAMPLE}"),
    ("Cosine(steps=9", ": cannot be read at column 7: '(' was never closed. Written: 'Cosine(steps=9'"),
    ("Cosine(steps: 9)", ": cannot be read at column 13: invalid syntax. Written: 'Cosine(steps: 9)'"),
    (
        "Cosine(steps=1or 2)",
        ": cannot be read at column 14: invalid decimal literal. Written: 'Cosine(steps=1or 2)'",
    ),
    # what only Python has
    (
        "2 * Constant()",
        ": '2 * Constant()' is an operator; instead of a * b write Product(a, b), and work out numbers "
        f"beforehand. {ALLOWED}",
    ),
    ("Cosine(steps=+9)", f", column 14: '+9' is an operator. {ALLOWED}"),
    ("Cosine(steps=-True)", f", column 14: '-True' is an operator. {ALLOWED}"),
    ("Cosine(steps=a < b)", f", column 14: 'a < b' is an operator. {ALLOWED}"),
    ("Cosine(steps=1 or 2)", f", column 14: '1 or 2' is an operator. {ALLOWED}"),
    ("Cosine(steps=1 if 2 else 3)", f", column 14: '1 if 2 else 3' is a condition. {ALLOWED}"),
    ("Cosine(steps=math.pi)", f", column 14: 'math.pi' is an attribute. {ALLOWED}"),
    ("Constant().value", f": 'Constant().value' is an attribute. {ALLOWED}"),
    ("Cosine(steps=a[0])", f", column 14: 'a[0]' is a subscript. {ALLOWED}"),
    (
        "Custom(lambda s: s)",
        f", column 8: 'lambda s: s' is a lambda; write Custom(\"package.module.function\"). {ALLOWED}",
    ),
    ("Custom(f'{1}')", f", column 8: \"f'{{1}}'\" is an f-string. {ALLOWED}"),
    (
        "Cosine(**{'steps': 1})",
        f", column 10: \"{{'steps': 1}}\" is unpacked; write the arguments one by one. {ALLOWED}",
    ),
    ("Product(*[1, 2])", f", column 9: '*[1, 2]' is unpacked; write the arguments one by one. {ALLOWED}"),
    ("Custom({'a': 1})", f", column 8: \"{{'a': 1}}\" is a dict. {ALLOWED}"),
    ("Custom({1})", f", column 8: '{{1}}' is a set. {ALLOWED}"),
    ("Custom((s := 1))", f", column 9: 's := 1' is an assignment. {ALLOWED}"),
    ("Custom((yield))", f", column 9: 'yield' is no part of the grammar. {ALLOWED}"),
    ("Cosine(steps=1j)", f", column 14: '1j' is of type complex. {ALLOWED}"),
    ("Custom(b'x')", f", column 8: \"b'x'\" is of type bytes. {ALLOWED}"),
    ("Constant()()", f": 'Constant()' is not the name of a schedule. {ALLOWED}"),
    # no schedule at all
    ("3", f" must be a schedule, {EXAMPLE}, or {{type, conf}}, got '3'"),
    ("'Constant()'", f" must be a schedule, {EXAMPLE}, or {{type, conf}}, got \"'Constant()'\""),
    ("[Constant()]", f" must be a schedule, {EXAMPLE}, or {{type, conf}}, got '[Constant()]'"),
    (3, f" must be a schedule, {EXAMPLE}, or {{type, conf}}, got 3"),
    (None, f" must be a schedule, {EXAMPLE}, or {{type, conf}}, got None"),
    (["Constant()"], f" must be a schedule, {EXAMPLE}, or {{type, conf}}, got ['Constant()']"),
    # mappings
    ({}, f" needs a 'type', the name of a schedule. {KNOWN}"),
    ({"type": "Cosine", "cnf": 1}, ": unknown key 'cnf'. Did you mean 'conf'? Known: conf, type."),
    (
        {"type": "Cosin"},
        f".type: there is no Schedule or FeedbackSchedule 'Cosin'. {NEAR_COSINE}",
    ),
    ({"type": 3}, ".type must be the name of a Schedule or FeedbackSchedule, got 3"),
    ({"type": "Cosine", "conf": 9}, ".conf must be a mapping of arguments, got 9"),
    ({"type": "Cosine", "conf": {9: 1}}, ".conf must be a mapping of arguments, got {9: 1}"),
    (
        {"type": "Cosine", "conf": {"step": 9}},
        ".conf: Cosine takes no 'step'. Did you mean 'steps'? Known: floor, steps.",
    ),
    (
        {"type": "Warmup", "conf": {"steps": 3, "then": {"typ": "Constant"}}},
        ".conf.then: unknown key 'typ'. Did you mean 'type'? Known: conf, type.",
    ),
    (
        {"type": "Sequence", "conf": {"phases": [[{"type": "Cosine"}, 3]], "last": "Constant()"}},
        ".conf.phases[0][0].conf: Cosine needs 'steps', which is missing",
    ),
    (
        {"type": "Warmup", "conf": {"steps": 3, "then": "Constant"}},
        ".conf: Warmup: then must be a schedule, got 'Constant'; a schedule has brackets and no quotes: "
        "Cosine(steps=900)",
    ),
    (
        {"type": "Warmup", "conf": {"steps": 3, "then": "Cosine(steps=0)"}},
        ".conf.then: Cosine: steps must be a whole number of real steps >= 1, got 0",
    ),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[str(value)[:40] for value, _ in REFUSED])
def test_what_is_wrong_is_refused_with_its_place(value: object, message: str) -> None:
    assert refusal(value) == message


def recursive_mapping() -> dict[str, Any]:
    """What a YAML anchor inside itself gives."""
    mapping: dict[str, Any] = {"type": "Warmup", "conf": {"steps": 1}}
    mapping["conf"]["then"] = mapping
    return mapping


HOSTILE: list[tuple[str, Callable[[], object], str]] = [
    ("too long", lambda: "Cosine(steps=" + "1" * 10_000 + ")", ": 10014 characters are too many"),
    ("open brackets", lambda: "(" * 9000, ": cannot be read at column"),
    ("minus signs", lambda: "-" * 9000 + "1", ": nested too deep to be read"),
    ("pluses", lambda: "1" + "+1" * 4900, ": nested too deep to be read"),
    ("attributes", lambda: "a" + ".a" * 4900, ": nested too deep to be read"),
    ("not", lambda: "not " * 2400 + "1", ": '"),
    ("digits", lambda: "Constant(" + "9" * 9000 + ")", ": cannot be read: Exceeds the limit"),
    ("hexadecimal digits", lambda: "Constant(0x" + "f" * 9000 + ")", ", column 10: '0xfff"),
    ("a null byte", lambda: "Constant(\0)", ": cannot be read: source code"),
    ("half a character", lambda: "\ud800", ": cannot be read: 'utf-8' codec can't encode"),
    (
        "nested calls",
        lambda: "Product(" * 51 + "Constant()" + ", Constant())" * 51,
        ", column 409: nested more than 50 deep",
    ),
    ("nested lists", lambda: "[" * 100 + "]" * 100, ", column 52: nested more than 50 deep"),
    ("a mapping in itself", recursive_mapping, ".conf.then.conf.then"),
]


@pytest.mark.parametrize(
    ("build", "beginning"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE]
)
def test_a_hostile_text_is_an_error_like_any_other(build: Callable[[], object], beginning: str) -> None:
    assert refusal(build()).startswith(beginning)


@given(st.text(alphabet="aCos.(),=*[]{}:'\"-+1e \n\\#0x_lmbdf", max_size=200))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        read = read_schedule(text, WHERE)
    except ConfigError:
        return  # any other error would end the test
    assert isinstance(read, Schedule | FeedbackSchedule)


def test_what_python_would_only_warn_of_is_refused_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert refusal("Cosine(steps=1or 2)").startswith(": cannot be read at column 14")
    assert caught == []


def test_forty_nested_curves_are_no_hostile_text() -> None:
    schedule: Schedule = Constant()
    for _ in range(40):
        schedule = Warmup(steps=1, then=schedule)
    assert read_schedule(repr(schedule), WHERE) == schedule


def test_nothing_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("print('x')", "__import__('os').system('echo x')", "Custom(print('x'))", "[print('x')][0]"):
        assert refusal(text)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "path", ["os._exit", "os.close", "builtins.print", "shutil.rmtree", "subprocess.getoutput"]
)
def test_a_configuration_does_not_choose_what_is_called(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in (
        f'Custom("{path}")',
        f'optimscheduler.schedules.Custom(fn="{path}")',
        f'Warmup(steps=3, then=Custom("{path}"))',
        {"type": "Custom", "conf": {"fn": path}},
    ):
        assert f"Custom: fn: '{path}' may not be called from here. Name a function of math" in refusal(value)
    assert capsys.readouterr().out == ""


def test_what_a_class_says_against_its_arguments_is_told_with_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Picky(Schedule):
        def __init__(self, value: object) -> None:
            raise ValueError(f"not {value!r}")

        def __call__(self, step: int) -> float:
            return float(step)

    monkeypatch.setattr("tests.cases.Picky", Picky, raising=False)
    assert refusal("tests.cases.Picky(3)").endswith("Picky refuses this: not 3")
