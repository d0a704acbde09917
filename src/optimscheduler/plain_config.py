"""The arguments of an OptimScheduler as plain values, and where two such trees differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import Tensor

__all__ = ["config_differences", "differences", "fingerprint", "plain"]

_SPEED: Final = ("foreach", "fused", "capturable", "differentiable")  # settings that change no result


def config_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every setting that differs; settings that change speed alone do not count."""
    return list(differences(_without_speed(saved), _without_speed(now)))


def fingerprint(config: Mapping[str, Any]) -> int:
    """A number that stands for a configuration, exact as a float; the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(config).encode(), digest_size=6).digest())


def _without_speed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "optim_conf": {k: v for k, v in config["optim_conf"].items() if k not in _SPEED}}


def plain(value: object) -> Any:  # Any: a tree of plain values
    """The value as YAML would hold it: tuples become lists, mappings dicts, everything unknown its repr."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if hasattr(value, "__qualname__"):  # a function or class: its repr holds an address
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def differences(
    saved: object,
    now: object,
    place: str = "",
    *,
    there: str = "in the checkpoint",
    here: str = "in the configuration",
) -> Iterator[str]:
    """A line for every place where two trees of plain values differ.

    Args:
        saved: one of them.
        now: the other.
        place: where in a larger tree they are.
        there: what to call the place of the first.
        here: what to call the place of the second.

    >>> list(differences({"lr": 1, "betas": [0.9, 0.99]}, {"lr": 2, "betas": [0.9, 0.99]}))
    ['lr: 1 in the checkpoint, 2 in the configuration']
    """
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for key in [*saved, *(k for k in now if k not in saved)]:
            inner = f"{place}.{key}" if place else str(key)
            pair = saved.get(key, _MISSING), now.get(key, _MISSING)
            yield from differences(*pair, inner, there=there, here=here)
    elif saved != now and not (saved != saved and now != now):  # NaN is the same as NaN here
        yield f"{place}: {saved!r} {there}, {now!r} {here}"


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()
