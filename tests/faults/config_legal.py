"""What a configuration may hold: the settings and their values, written down a second time."""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import torch

from optimscheduler.schedules import SCHEDULES

__all__ = ["FUNCTIONS", "found", "members_of", "optimizer_of", "strangers"]

Test = Callable[[Any], bool]


def _whole(least: int) -> Test:
    def holds(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and least <= value < 2**63 and value == int(value)

    return holds


def _number(above: float = -math.inf, least: float = -math.inf, below: float = math.inf) -> Test:
    def holds(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max and above < value < below and value >= least

    return holds


def _in(*allowed: object) -> Test:
    return lambda value: any(type(value) is type(each) and value == each for each in allowed)


def _either(*tests: Test) -> Test:
    return lambda value: any(test(value) for test in tests)


def _names(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or (
        isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    )


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _betas(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_number(least=0, below=1), value))


_NONE, _BOOL, _ONE = _in(None), _in(True, False), _whole(1)
_NORM = _either(_in("inf"), lambda value: value == math.inf, _number(least=1))

_SHARED: Final[dict[str, Test]] = {
    "accum_grad": _ONE,
    "ft_factor": _number(above=0),
    "grad_clip": _either(_NONE, _number(above=0)),
    "grad_norm_type": _NORM,
    "use_amp": _in(True, False, "fp16", "bf16"),
}
_TOP: Final[dict[str, Test]] = {
    **_SHARED,
    "accum_grad": _either(_NONE, _ONE),
    "seed": _whole(0),
    "num_epochs": _ONE,
    "num_steps": _either(_NONE, _ONE),
    "samples_per_update": _either(_NONE, _ONE),
    "tokens_per_update": _either(_NONE, _ONE),
    "device": _text,
    "distributed": _in(True, False, "ddp", "deferred", "fsdp"),
    "threads": _either(_NONE, _ONE),
    "partial_window": _in("apply", "carry", "drop"),
    "checkpoint_every": _ONE,
    "keep": _ONE,
    "log_every": _ONE,
    "tensorboard": _BOOL,
    "train_cfg": lambda value: isinstance(value, dict),
    "data_cfg": lambda value: isinstance(value, dict),
}
_TRAIN: Final[dict[str, Test]] = {
    "model": lambda value: isinstance(value, dict),
    "optim_sches": lambda value: isinstance(value, dict),
    "weight": _either(_NONE, lambda value: isinstance(value, str)),
}
_DATA: Final[dict[str, Test]] = {
    "train": lambda value: isinstance(value, dict),
    "valid": _either(_NONE, lambda value: isinstance(value, dict)),
    "batch_size": _ONE,
    "valid_batch_size": _either(_NONE, _ONE),
    "num_workers": _whole(0),
}
_CLASS: Final[dict[str, Test]] = {
    "type": _text,
    "conf": _either(_NONE, lambda value: isinstance(value, dict)),
}
_SCHEDULE: Test = _either(_NONE, _text, lambda value: isinstance(value, dict))
_SCHEDULES: Test = _either(_NONE, lambda value: isinstance(value, dict))
_MEMBER: Final[dict[str, Test]] = {
    **_SHARED,
    "optim_type": _text,
    "optim_conf": lambda value: isinstance(value, dict),
    "distributed": _BOOL,
    "optim_loss": _either(_NONE, _text),
    "updated_modules": _either(_NONE, _names),
    "step_per_update": _ONE,
    "schedule": _SCHEDULE,
    "schedules": _SCHEDULES,
    "param_groups": _either(_NONE, lambda value: isinstance(value, list)),
    "exclude": _names,
    "guard": _either(_NONE, _number(above=0), lambda value: isinstance(value, dict)),
    "lr_clock": _in("window", "applied"),
    "max_skips": _whole(0),
    "forensics": _BOOL,
    "check_ranks": _BOOL,
    "layout": _in("auto", "flat", "loose"),
}
_OF_TYPES: Final[dict[str, dict[str, Test]]] = {
    "Noamlr": {"d_model": _either(_NONE, _ONE), "warmup_steps": _ONE},
    "NoamLr": {"d_model": _either(_NONE, _ONE), "warmup_steps": _ONE},
    "ExponentDecayLr": {"decay_factor": lambda value: _number(above=0)(value) and value <= 1},
}
_GUARD: Final[dict[str, Test]] = {"z": _number(above=0), "window": _whole(2), "warm_up": _whole(2)}
_OPTIM: Final[dict[str, Test]] = {
    "lr": _number(above=0),
    "betas": _betas,
    **dict.fromkeys(("eps", "weight_decay", "momentum"), _number(least=0)),
    **dict.fromkeys(("nesterov", "amsgrad", "maximize"), _BOOL),
}
_RULE: Final[dict[str, Test]] = {
    **_OPTIM,
    "lr": _number(least=0),
    "name": _names,
    "ndim": _either(_whole(0), _text),
    "layer_decay": _either(_NONE, _number(above=0)),
    "schedule": _SCHEDULE,
    "schedules": _SCHEDULES,
}
_ARGUMENTS: Final[Mapping[str, frozenset[str]]] = {
    "tests.run.tiny.Tiny": frozenset({"width", "dropout"}),
    "tests.run.tiny.Smooth": frozenset({"partly"}),
    "tests.run.tiny.Points": frozenset({"count", "noise"}),
    "encoder_decoder.Reader": frozenset({"width"}),
    "encoder_decoder.Numbers": frozenset({"split"}),
    "char_lm.PydocText": frozenset({"split", "context", "stride"}),
    "char_lm.CharLM": frozenset({"width", "layers", "heads", "context", "dropout"}),
}
"""What the classes of the bases take."""

FUNCTIONS: Final = frozenset({"math.sqrt", "math.log", "tests.faults.config_bases.own"})
"""Of the functions that are tried, those that may be called."""


def strangers(values: Mapping[str, Any]) -> Iterator[str]:
    """A line for every key and value that must not have been accepted."""
    yield from _checked("", values, _TOP)
    train, data = values["train_cfg"], values["data_cfg"]
    yield from _checked("train_cfg", train, _TRAIN)
    yield from _checked("data_cfg", data, _DATA)
    for where, described in {
        "model": train["model"],
        "train": data["train"],
        "valid": data.get("valid"),
    }.items():
        if described is not None:
            yield from _checked(where, described, _CLASS)
            known = _ARGUMENTS.get(described["type"])
            conf = described.get("conf") or {}
            yield from (f"{where}: unknown {key!r}" for key in conf if known is not None and key not in known)
    for name, described in members_of(values).items():
        yield from _checked(name, described, _CLASS)
        yield from _of_member(name, described)


def _of_member(name: str, described: Mapping[str, Any]) -> Iterator[str]:
    conf = described["conf"]
    kind = described.get("type", "OptimScheduler").rpartition(".")[2]
    yield from _checked(name, conf, _MEMBER | _OF_TYPES.get(kind, {}))
    taken = frozenset(inspect.signature(optimizer_of(conf)).parameters) - {"params"}
    optim = {key: _OPTIM.get(key, lambda value: True) for key in taken}
    yield from _checked(f"{name}: optim_conf", conf["optim_conf"], optim)
    for rule in conf.get("param_groups") or ():
        selectors = {key: test for key, test in _RULE.items() if key not in _OPTIM}
        yield from _checked(f"{name}: rule", rule, optim | selectors | {"lr": _RULE["lr"]})
    if isinstance(conf.get("guard"), dict):
        yield from _checked(f"{name}: guard", conf["guard"], _GUARD)
    for schedule in (conf.get("schedule"), *(conf.get("schedules") or {}).values()):
        yield from _of_schedule(f"{name}: schedule", schedule)
        yield from _functions(f"{name}: schedule", schedule)


def _of_schedule(where: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and "type" in value:
        conf = value.get("conf") or {}
        yield from (f"{where}: unknown {key!r}" for key in value if key not in ("type", "conf"))
        yield from _unknown_arguments(where, value["type"], conf)
        for inner in conf.values():
            yield from _of_schedule(where, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_schedule(where, inner)
    elif isinstance(value, str) and "(" in value:
        for call in (node for node in ast.walk(ast.parse(value.strip())) if isinstance(node, ast.Call)):
            yield from _unknown_arguments(
                where, ast.unparse(call.func), {str(each.arg): 0 for each in call.keywords}
            )


def _functions(where: str, value: object) -> Iterator[str]:
    """A line for every function that must not have been called, wherever in a schedule it is named."""
    for path in re.findall(r"""(?:Custom\(|'fn': )[\w=]*['"](.*?)['"]""", repr(value).replace("\\", "")):
        if path not in FUNCTIONS:
            yield f"{where}: {path} was called"


def _unknown_arguments(where: str, name: str, conf: Mapping[str, object]) -> Iterator[str]:
    if name in SCHEDULES:
        known = inspect.signature(SCHEDULES[name]).parameters
        yield from (f"{where}: {name}: unknown {key!r}" for key in conf if key not in known)


def _checked(where: str, values: Mapping[str, Any], legal: Mapping[str, Test]) -> Iterator[str]:
    for key, value in values.items():
        if key not in legal:
            yield f"{where}: unknown key {key!r:.60} was accepted"
        elif not legal[key](value):
            yield f"{where}: {key} was accepted with {value!r:.60}"


def members_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is written of each OptimScheduler, by name."""
    described = values["train_cfg"]["optim_sches"]
    return {"main": described} if set(described) & {"type", "conf"} else dict(described)


def optimizer_of(conf: Mapping[str, Any]) -> type[torch.optim.Optimizer]:
    """The class that a member's `conf` names."""
    cls: type[torch.optim.Optimizer] = found(conf["optim_type"], torch.optim)
    return cls


def found(path: str, short: Any = None) -> Any:
    """What a dotted path names, or a name in `short`."""
    if short is not None and hasattr(short, path):
        return getattr(short, path)
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
