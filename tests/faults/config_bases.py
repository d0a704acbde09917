"""Configurations that are right, and their form as a tree whose text can be broken anywhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.run.command import YAML

__all__ = [
    "BASES",
    "EXAMPLES",
    "Pair",
    "Raw",
    "Table",
    "called",
    "own",
    "pairs_of",
    "plain_of",
    "text_of",
    "tree_of",
]

EXAMPLES: Final = tuple(
    Path(__file__).parents[2] / "examples" / name for name in ("char_lm", "encoder_decoder")
)
"""Folders of examples that need no other packages."""

_SEVERAL: Final = """\
seed: 1
num_epochs: 4
num_steps: 9
accum_grad: 2
ft_factor: 0.5
grad_clip: 0.5
grad_norm_type: inf
use_amp: bf16
device: cpu
distributed: deferred
threads: 1
partial_window: carry
checkpoint_every: 5
keep: 3
log_every: 5
tensorboard: false
train_cfg:
  model: {type: tests.run.tiny.Tiny, conf: {width: 5, dropout: 0.1}}
  optim_sches:
    body:
      conf:
        optim_type: AdamW
        optim_conf: {lr: 2e-3, betas: [0.9, 0.98], eps: 1e-9, weight_decay: 0.1}
        updated_modules: [first, norm]
        param_groups:
        - {ndim: <2, weight_decay: 0, lr: 1e-3}
        - {name: first.*, schedule: "Linear(steps=12)"}
        schedule: Warmup(steps="10%", then=Cosine(steps="rest", floor=0.1))
        schedules: {weight_decay: 'Linear(steps="3ep", end=0.5)'}
        guard: {z: 5.0, window: 64, warm_up: 10}
        max_skips: 5
        forensics: true
        check_ranks: false
        layout: loose
    head:
      type: OptimScheduler
      conf:
        optim_type: SGD
        optim_conf: {lr: 0.1, momentum: 0.9}
        optim_loss: loss
        updated_modules: second
        exclude: second.bias
        step_per_update: 2
        accum_grad: 3
        schedule: Cosine(steps=900)
        guard: 8
        lr_clock: applied
  weight: null
data_cfg:
  train: {type: tests.run.tiny.Points, conf: {count: 22, noise: 0.2}}
  batch_size: 3
  valid_batch_size: 5
  num_workers: 0
"""

_SAMPLES: Final = """\
num_epochs: 5
samples_per_update: 12
grad_clip: null
use_amp: false
device: cpu
partial_window: drop
train_cfg:
  model: {type: tests.run.tiny.Smooth, conf: {partly: false}}
  optim_sches:
    type: exp.ExponentDecayLr
    conf:
      optim_type: torch.optim.SGD
      optim_conf: {lr: 0.5, momentum: 0.5, nesterov: true}
      decay_factor: 0.5
data_cfg:
  train: {type: tests.run.tiny.Points, conf: {count: 40}}
  valid: {type: tests.run.tiny.Points}
  batch_size: 4
"""

_NESTED: Final = """\
num_epochs: 6
use_amp: false
device: cpu
train_cfg:
  model: {type: tests.run.tiny.Tiny}
  optim_sches:
    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2}
      schedule:
        type: Warmup
        conf:
          steps: 4
          shape: cosine
          then: {type: Sequence, conf: {phases: [[Constant(), 3]], last: "Linear(steps=5)"}}
data_cfg:
  train: {type: tests.run.tiny.Points}
  batch_size: 5
"""

BASES: Final[Mapping[str, str]] = {
    "command": YAML,
    "several": _SEVERAL,
    "samples": _SAMPLES,
    "nested": _NESTED,
    **{folder.name: (folder / "train.yaml").read_text(encoding="utf-8") for folder in EXAMPLES},
}
"""Name -> YAML that is right."""

called: Final[list[str]] = []
"""What was called though nobody may call it."""


def trap(*_: object, **__: object) -> float:
    """A function that a configuration may name, and that is of no kind that is needed anywhere."""
    called.append("trap")
    return 1.0


def own(step: int) -> float:
    """A function that a configuration may name."""
    return 1 / step


class Trap:
    """A class of that kind."""

    def __init__(self, *_: object, **__: object) -> None:
        called.append("Trap")


@dataclass(frozen=True, slots=True)
class Raw:
    """YAML as it is to be written."""

    text: str


@dataclass(slots=True)
class Pair:
    """A key and what is behind it."""

    key: str | Raw
    value: Any  # a Table, a list, a Raw or a plain value


@dataclass(slots=True)
class Table:
    """A mapping in which a key may stand twice."""

    pairs: list[Pair]


def tree_of(value: object) -> Any:
    """Plain values as a tree."""
    if isinstance(value, Mapping):
        return Table([Pair(key, tree_of(each)) for key, each in value.items()])
    return [tree_of(each) for each in value] if isinstance(value, list) else value


def pairs_of(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Table, Pair]]:
    """Every pair of a tree: the keys that lead to it, what it is in, and itself."""
    if isinstance(tree, Table):
        for pair in tree.pairs:
            here = (*path, pair.key if isinstance(pair.key, str) else pair.key.text)
            yield here, tree, pair
            yield from pairs_of(pair.value, here)
    elif isinstance(tree, list):
        for each in tree:
            yield from pairs_of(each, path)


def plain_of(tree: object) -> Any:
    """The values of a tree.

    Raises:
        ValueError: it holds raw text, or a key twice.
    """
    if isinstance(tree, Raw):
        raise ValueError("only a reader of YAML knows")
    if isinstance(tree, Table):
        keys = [plain_of(pair.key) for pair in tree.pairs]
        if len(set(keys)) < len(keys):
            raise ValueError("a key stands twice")
        return {key: plain_of(pair.value) for key, pair in zip(keys, tree.pairs, strict=True)}
    return [plain_of(each) for each in tree] if isinstance(tree, list) else tree


def text_of(tree: object, indent: int = 0) -> str:
    """A tree as YAML: mappings in lines, lists and what is in them in one line."""
    if not isinstance(tree, Table) or not tree.pairs:
        return f" {_flow(tree)}\n"
    lines = [f"{'  ' * indent}{_key(pair.key)}:{text_of(pair.value, indent + 1)}" for pair in tree.pairs]
    return ("\n" if indent else "") + "".join(lines)


def _flow(value: object) -> str:
    match value:
        case Raw(text=text):
            return text
        case Table(pairs=pairs):
            return "{" + ", ".join(f"{_key(pair.key)}: {_flow(pair.value)}" for pair in pairs) + "}"
        case list():
            return f"[{', '.join(map(_flow, value))}]"
        case str():
            return _quoted(value)
        case float() if not math.isfinite(value):
            return repr(value).replace("inf", ".inf").replace("nan", ".nan")
        case None | bool():
            return json.dumps(value)
        case _:
            return repr(value)


def _key(key: str | Raw) -> str:
    if isinstance(key, Raw):
        return key.text
    return key if re.fullmatch(r"[a-z]\w*", key) and key not in ("on", "off", "yes", "no") else _quoted(key)


def _quoted(text: str) -> str:
    """In double quotes, with escapes for what YAML would not take or would fold."""
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff]",
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )
