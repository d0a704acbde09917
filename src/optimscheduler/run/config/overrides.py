"""Changes of a configuration from the command line: `train_cfg.optim_sches.conf.warmup_steps=200`.

>>> apply_overrides({"a": {"b": [1, 2]}}, ["a.b.1=3e-4", "a.c={d: null}"])
{'a': {'b': [1, 0.0003], 'c': {'d': None}}}
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.strict_yaml import read_text

__all__ = ["apply_overrides"]


def apply_overrides(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A changed copy of a configuration; whether the places exist is for the schema to say.

    Args:
        config: as it was read.
        overrides: each a dotted path, `=`, and a value written as YAML.

    Raises:
        ConfigError: an override that is none, or a path that leads through a plain value.
    """
    changed = copy.deepcopy(config)
    for override in overrides:
        path, sign, text = override.partition("=")
        keys = path.split(".")
        if not sign or not all(keys) or path != path.strip():
            raise ConfigError(
                f"{override!r:.80} is no override; write path.to.key=value, without spaces around the =, for "
                "example train_cfg.optim_sches.conf.warmup_steps=200"
            )
        _put(changed, keys, read_text(text, f"the override {override!r:.80}"), override)
    return changed


def _put(place: Any, keys: list[str], value: object, override: str) -> None:  # Any: a tree of plain values
    for depth, key in enumerate(keys):
        index = _index(place, key, override) if isinstance(place, list) else key
        if depth == len(keys) - 1:
            place[index] = value
            return
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[index]
        if not isinstance(place, dict | list):
            done = ".".join(keys[: depth + 1])
            raise ConfigError(
                f"the override {override!r:.80}: {done} is {place!r:.80}, there is nothing inside"
            )


def _index(place: list[Any], key: str, override: str) -> int:
    if key.isdecimal() and int(key) < len(place):
        return int(key)
    raise ConfigError(
        f"the override {override!r:.80}: {key!r:.80} is no place in a list of {len(place)}; the first is 0"
    )
