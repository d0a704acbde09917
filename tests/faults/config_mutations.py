"""What people, programs and ill-wishers write into a configuration: one to three faults in a right one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from optimscheduler.run.config.strict_yaml import read_text
from tests.faults.config_bases import BASES, Pair, Raw, Table, pairs_of, text_of, tree_of
from tests.faults.config_words import (
    DEPTHS,
    NEW_KEYS,
    NUMBERS,
    OTHERS,
    PATHS,
    RAW,
    RAW_KEYS,
    SCHEDULES,
    TEXTS,
    deep,
)

__all__ = ["Mutated", "mutated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutated:
    """A configuration that was made wrong, or only different.

    Attributes:
        told: what was done, for people.
        text: the file.
        words: one of these must be in the message that refuses it.
        tree: what the text says, where nothing was done to the text itself.
    """

    told: str
    text: str
    words: frozenset[str]
    tree: Any


def _typo(chance: Random, word: str) -> str:
    """A letter dropped, swapped, doubled, changed or in the other case."""
    at = chance.randrange(max(len(word), 1))
    front, letter, rest = word[:at], word[at : at + 1], word[at + 1 :]
    swapped = front + rest[:1] + letter + rest[1:]
    cased = front + letter.swapcase() + rest
    return chance.choice([front + rest, swapped, front + 2 * letter + rest, front + "q" + rest, cased])


_LENGTHS: Final = frozenset(
    ("num_epochs", "num_steps", "accum_grad", "samples_per_update", "partial_window", "train", "batch_size")
)
"""What says how long the run is; another length, elsewhere, may not fit into that."""


def _keys(tree: object) -> set[str]:
    return {key for path, _, _ in pairs_of(tree) for key in path}


class _Mutation:
    """One configuration while it is being broken."""

    def __init__(self, chance: Random, tree: Table) -> None:
        self.chance, self.tree = chance, tree
        self.words: set[str] = set()
        self.told: list[str] = []

    def once(self) -> None:
        """Break one thing."""
        ways = [
            *(
                self.misspell,
                self.move,
                self.add,
                self.delete,
                self.twice,
                self.other,
                self.other,
                self.number,
            ),
            *(self.number, self.text, self.deep, self.path, self.schedule, self.raw, self.raw_key, self.clip),
            *(self.harmless, self.harmless, self.harmless),
        ]
        self.pick(ways)()

    def pick(self, among: list[Any]) -> Any:
        return self.chance.choice(among)

    def somewhere(self, fits: Callable[[Pair], bool] = lambda pair: True) -> tuple[Table, Pair]:
        """Any pair; one that fits if there is one."""
        every = list(pairs_of(self.tree))
        path, table, pair = self.pick([each for each in every if fits(each[2])] or every)
        self.words |= {*path} | ({"real steps of the run", "partial_window"} if _LENGTHS & {*path} else set())
        self.told[-1] += f" at {'.'.join(path):.80}"
        return table, pair

    def tell(self, what: str) -> None:
        self.told.append(what)

    def misspell(self) -> None:
        self.tell("misspelt")
        _, pair = self.somewhere(lambda pair: isinstance(pair.key, str))
        pair.key = _typo(self.chance, pair.key if isinstance(pair.key, str) else pair.key.text)
        self.words.add(pair.key)

    def move(self) -> None:
        self.tell("moved")
        table, pair = self.somewhere()
        table.pairs.remove(pair)
        self.words |= _keys(pair.value)
        every = [self.tree, *(p.value for _, _, p in pairs_of(self.tree) if isinstance(p.value, Table))]
        self.pick(every).pairs.append(pair)

    def add(self) -> None:
        self.tell("added")
        table, _ = self.somewhere()
        pair = Pair(self.pick(NEW_KEYS), self.value())
        table.pairs.append(pair)
        self.words.add(str(pair.key))
        self.told[-1] += f" {pair.key!r:.40}: {pair.value!r:.40}"

    def delete(self) -> None:
        self.tell("deleted")
        table, pair = self.somewhere()
        table.pairs.remove(pair)

    def twice(self) -> None:
        self.tell("twice")
        table, pair = self.somewhere()
        table.pairs.append(Pair(pair.key, copy.deepcopy(self.pick([pair.value, 1, "x"]))))

    def other(self) -> None:
        self.put("value", self.value())

    def number(self) -> None:
        self.put("number", self.pick(NUMBERS), lambda pair: isinstance(pair.value, int | float))

    def harmless(self) -> None:
        """What is allowed in most places, so that many are accepted and their plans compared."""
        self.put("small", self.pick([1, 2, 3, 5, 7, 0.5]), lambda pair: isinstance(pair.value, int | float))

    def text(self) -> None:
        self.put("text", self.pick(TEXTS), lambda pair: isinstance(pair.value, str))

    def deep(self) -> None:
        self.put("deep", self.pick(deep(self.pick(DEPTHS))))

    def path(self) -> None:
        self.put("path", self.pick(PATHS), lambda pair: pair.key in ("type", "optim_type"))

    def raw(self) -> None:
        self.put("YAML", Raw(self.pick(RAW)))

    def schedule(self) -> None:
        """Another schedule, or a letter of one changed; where there is none, one is added."""
        self.tell("schedule")
        confs = [p.value for _, _, p in pairs_of(self.tree) if p.key == "conf" and isinstance(p.value, Table)]
        every = [each for each in pairs_of(self.tree) if isinstance(each[2].value, str)]
        given = [(path, p) for path, _, p in every if p.key == "schedule"]
        text = self.pick([*SCHEDULES, *(_typo(self.chance, p.value) for _, p in given for _ in range(20))])
        if given:
            path, pair = self.pick(given)
            pair.value = text
            self.words |= {"param_groups"} & {*path}  # whose rule has a place of its own
        elif confs:
            self.pick(confs).pairs.append(Pair("schedule", text))
        self.words |= {"schedule"}
        self.told[-1] += f": {text:.60}"

    def raw_key(self) -> None:
        self.tell("YAML key")
        _, pair = self.somewhere()
        pair.key = Raw(self.pick(RAW_KEYS))
        self.words |= {pair.key.text.strip("\"'") or "''", "None"}  # named as it was read
        self.told[-1] += f": {pair.key.text}"

    def clip(self) -> None:
        """Leave a list, a text or a mapping without its end."""
        self.tell("cut")
        _, pair = self.somewhere(lambda pair: isinstance(pair.value, str | list | Table))
        if isinstance(pair.value, str):
            pair.value = pair.value[: self.chance.randrange(max(len(pair.value), 1))]
        elif isinstance(pair.value, list):
            pair.value = pair.value[:-1]
        elif isinstance(pair.value, Table):
            self.words |= _keys(pair.value)
            pair.value = Table(pair.value.pairs[:-1])

    def put(self, what: str, value: object, fits: Callable[[Pair], bool] = lambda pair: True) -> None:
        self.tell(f"{what} {value!r:.60}")
        _, pair = self.somewhere(fits)
        self.words |= _keys(pair.value)
        pair.value = tree_of(value)

    def value(self) -> Any:
        return tree_of(self.pick([*OTHERS, *TEXTS[:12], *NUMBERS[:6]]))


def _one(chance: Random) -> Mutated:
    name = chance.choice(sorted(BASES))
    mutation = _Mutation(chance, tree_of(read_text(BASES[name], name)))
    for _ in range(chance.choice([1, 1, 1, 2, 2, 3])):
        mutation.once()
    text, tree = text_of(mutation.tree), mutation.tree
    if chance.random() < 0.1:
        text, tree = _typo_in_text(chance, text, mutation), None
    told = f"{name}: {'; '.join(mutation.told)}"
    return Mutated(told=told, text=text, words=frozenset(mutation.words), tree=tree)


def _typo_in_text(chance: Random, text: str, mutation: _Mutation) -> str:
    """A letter too many or too few anywhere, or a line in the wrong column."""
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    how = chance.choice(["typo", "in", "out", "again", "gone"])
    mutation.tell(f"{how} in line {at + 1}")
    mutation.words |= _keys(mutation.tree)  # the message names the line, or whatever the line has become
    lines[at] = {
        "typo": lambda line: _typo(chance, line),
        "in": lambda line: f" {line}",
        "out": lambda line: line.removeprefix(" "),
        "again": lambda line: f"{line}\n{line}",
        "gone": lambda line: "",
    }[how](lines[at])
    return "\n".join(lines)


def mutated(count: int, start: int) -> list[Mutated]:
    """So many different ones; the same for the same `start`."""
    found: dict[str, Mutated] = {}
    while len(found) < count:
        found |= {each.text: each for each in _round(count, start)}
        start += 1_000_003  # Hypothesis gives some of them several times
    return list(found.values())[:count]


def _round(count: int, start: int) -> list[Mutated]:
    """Hypothesis's examples, some maybe the same."""
    drawn: list[Mutated] = []

    @seed(start)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True))  # of a seed that Hypothesis draws
    def collect(chance: Random) -> None:
        drawn.append(_one(chance))

    collect()
    return drawn
