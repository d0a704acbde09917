"""What every part of a saved state must be, apart from the tensors of the optimizer.

A state may have been written by hand, cut short or damaged. All of it is looked at before any of it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from optimscheduler.errors import ConfigError
from optimscheduler.state.values import (
    COUNT,
    Check,
    anything,
    check_flag,
    check_keys,
    check_text,
    damaged,
    listed,
    mapping,
    real_number,
    whole_number,
)
from optimscheduler.update.guard import guard_for
from optimscheduler.window.clock import HOST, Cadence

__all__ = ["check_parts", "check_scale"]

_MOST: Final = 2**63 - 1


def check_parts(state: Mapping[str, Any]) -> None:
    """Check all parts of a saved state that has them all; see `state` for what they are.

    Raises:
        CheckpointError: a part is not what it should be; the message names place, value and what is allowed.
    """
    _config("config", state["config"])
    _parameters("parameters", state["parameters"])
    _optimizer(state["optimizer"], state["parameters"])
    if state["scaler"] is not None:
        check_scale("scaler", state["scaler"])
    check_keys("clock", state["clock"], _CLOCK)
    _inside(state["clock"]["inside"], state["config"])
    check_keys("ledger", state["ledger"], dict.fromkeys(("applied", "skipped", "skips_in_row"), COUNT))
    _guard(state["guard"], state["config"].get("guard"))
    if "values" in state:
        _values(state["values"], state["optimizer"]["groups"])
    _layout(state.get("layout"), state["parameters"])
    _window(state["window"], state["parameters"], state["clock"]["batch"])
    _scale_of_window(state["window"], state["scaler"])
    for i, average in enumerate(listed("averages", state.get("averages", []))):
        _average(f"averages[{i}]", average, state["parameters"])


def check_scale(place: str, scaler: object) -> None:
    """Check the state of a loss scale, ours or that of a `torch.amp.GradScaler`.

    Raises:
        CheckpointError: see `check_parts`.
    """
    reference = (
        {"reference_weight": real_number(least=0)} if "reference_weight" in mapping(place, scaler) else {}
    )
    check_keys(place, scaler, {**_SCALE, **reference})


# ---- parts ----


def _config(place: str, config: object) -> None:
    known = {"optim_type": check_text, "optim_conf": mapping, "schedule": anything}
    check_keys(place, config, known)
    _plain(place, config)


def _plain(place: str, value: object) -> None:
    """As YAML would hold it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _plain(f"{place}.{key}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _plain(f"{place}[{i}]", item)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise damaged(place, value, "be a plain value")


def _parameters(place: str, parameters: object) -> None:
    for name, shape in mapping(place, parameters).items():
        if shape is None:
            continue
        for size in listed(f"{place}.{name}", shape):
            COUNT(f"{place}.{name}", size)


def _optimizer(optimizer: object, parameters: Mapping[str, Any]) -> None:
    check_keys("optimizer", optimizer, {"state": mapping, "groups": listed})
    assert isinstance(optimizer, Mapping)
    for name, entries in optimizer["state"].items():
        _among("optimizer.state", name, parameters)
        for key in mapping(f"optimizer.state.{name}", entries):
            if type(key) is not int:  # some classes number what they keep
                check_text(f"optimizer.state.{name}", key)
    for name in listed("optimizer.present", optimizer.get("present", [])):
        _among("optimizer.present", name, parameters)
    held: list[str] = []
    for i, group in enumerate(optimizer["groups"]):
        check_keys(f"optimizer.groups[{i}]", group, {"params": listed})
        held += group["params"]
    for name in held:
        _among("optimizer.groups", name, parameters)
    if left := set(parameters) - set(held):
        raise damaged("optimizer.groups", sorted(left)[0], "have each parameter, and there is none with")
    if len(set(held)) < len(held):
        raise damaged("optimizer.groups", held, "have each parameter once")
    if "more" in optimizer:
        mapping("optimizer.more", optimizer["more"])


def _inside(inside: int, config: Mapping[str, Any]) -> None:
    size = Cadence(accum_grad=config["accum_grad"]).size if _is_cadence(config.get("accum_grad")) else _MOST
    if inside >= size:
        raise damaged("clock.inside", inside, f"be less than the {size} batches of a window")


def _is_cadence(accum_grad: object) -> bool:
    return accum_grad == HOST or (type(accum_grad) is int and accum_grad >= 1)


def _guard(guard: object, written: object) -> None:
    """What a guard remembers; as many norms as the guard of the saved configuration does."""
    try:
        expected = guard_for(written).state_dict()
    except ConfigError:  # others say so
        expected = {}
    found = mapping("guard", guard)
    if "norms" not in expected and "norms" not in found:
        return
    check_keys("guard", found, {"norms": listed})
    if "norms" in expected and len(found["norms"]) != len(expected["norms"]):
        raise damaged("guard.norms", found["norms"], f"be a list of {len(expected['norms'])}")
    for i, norm in enumerate(found["norms"]):
        if not (isinstance(norm, float) and math.isnan(norm)):  # a free place
            real_number(least=0)(f"guard.norms[{i}]", norm)


def _values(values: object, groups: Sequence[Mapping[str, Any]]) -> None:
    check_keys("values", values, {"written": check_flag})
    assert isinstance(values, Mapping)
    spots: set[tuple[object, ...]] = set()
    for i, spot in enumerate(listed("values.left", values.get("left", []))):
        place = f"values.left[{i}]"
        if len(listed(place, spot)) != 3:
            raise damaged(place, spot, "be a group's number, a place in it and a number")
        group, name, value = spot
        whole_number(most=len(groups) - 1)(place, group)
        check_text(place, name)
        if name.split("[")[0] not in groups[group]:
            raise damaged(place, name, f"be an entry of group {group}")
        real_number()(place, value)
        if (group, name) in spots:
            raise damaged(place, spot, "be a place that comes once")
        spots.add((group, name))


def _layout(layout: object, parameters: Mapping[str, Any]) -> None:
    if layout is None:
        return
    parts = list(layout.values()) if isinstance(layout, Mapping) else listed("layout", layout)
    if len(parts) != 3:
        raise damaged(
            "layout", layout, "be three parts: who lies together, who waits, how often that is tried"
        )
    together = [name for names in listed("layout[0]", parts[0]) for name in listed("layout[0]", names)]
    for name in [*together, *listed("layout[1]", parts[1])]:
        _among("layout", name, parameters)
    if len(set(together)) < len(together):
        raise damaged("layout[0]", together, "have each parameter once")
    whole_number(least=-_MOST)("layout[2]", parts[2])


def _window(window: object, parameters: Mapping[str, Any], last: int) -> None:
    check_keys("window", window, _WINDOW)
    assert isinstance(window, Mapping)
    batches, count = window["batches"], len(window["batches"])
    for i, batch in enumerate(batches):
        whole_number(least=batches[i - 1] + 1 if i else 1, most=last)(f"window.batches[{i}]", batch)
    for key, check in (("losses", _scalar), ("weights", _weight)):
        if len(window[key]) != count:
            raise damaged(
                f"window.{key}", window[key], f"be {count}, as many as there are batches, in number;"
            )
        for i, value in enumerate(window[key]):
            check(f"window.{key}[{i}]", value)
    if (window["weighted"] is None) is bool(batches):
        raise damaged("window.weighted", window["weighted"], "be null in an empty window, and only there")
    if window["weighted"] is not None:
        check_flag("window.weighted", window["weighted"])
    for name, gradient in window["gradients"].items():
        _among("window.gradients", name, parameters)
        _like_parameter(f"window.gradients.{name}", gradient, parameters[name])
    if window["gradients"] and not batches:
        raise damaged("window.gradients", sorted(window["gradients"]), "be empty where there are no batches;")


def _scale_of_window(window: Mapping[str, Any], scaler: Mapping[str, Any] | None) -> None:
    """Pending gradients were made under the loss scale of the state, which is a float32."""
    scale = 1.0
    if scaler is not None and window["batches"]:
        scale = scaler["scale"] / (scaler.get("reference_weight") or 1.0)
    if not math.isclose(window["scale"], scale, rel_tol=1e-6):
        raise damaged("window.scale", window["scale"], f"be {scale:g}, as the loss scale says")


def _like_parameter(place: str, gradient: object, shape: Sequence[int] | None) -> None:
    if not isinstance(gradient, Tensor):
        raise damaged(place, gradient, "be a tensor")
    if not (gradient.is_floating_point() or gradient.is_complex()):
        raise damaged(place, gradient.dtype, "be of a floating-point type")
    if shape is not None and list(gradient.shape) != list(shape):
        raise damaged(place, tuple(gradient.shape), f"have the shape of its parameter, {tuple(shape)}")


def _average(place: str, average: object, parameters: Mapping[str, Any]) -> None:
    check_keys(place, average, _AVERAGE)
    assert isinstance(average, Mapping)
    if average["decay"] is not None:
        real_number(least=0, below=1)(f"{place}.decay", average["decay"])
    elif average["warm_up"]:
        raise damaged(f"{place}.warm_up", True, "be False where decay is None")
    for name, weight in average["weights"].items():
        _among(f"{place}.weights", name, parameters)
        _like_parameter(f"{place}.weights.{name}", weight, parameters[name])


# ---- what several have ----


def _among(place: str, name: object, parameters: Mapping[str, Any]) -> None:
    if not isinstance(name, str) or name not in parameters:
        raise damaged(place, name, "name parameters of this state")


def _scalar(place: str, value: object) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise damaged(place, value, "be a tensor of one number")


def _weight(place: str, value: object) -> None:
    if isinstance(value, Tensor):
        _scalar(place, value)
        value = float(value)
    real_number(least=0)(place, value)


_CLOCK: Final[Mapping[str, Check]] = {
    "batch": COUNT,
    "epoch": whole_number(least=1),
    "closed_windows": COUNT,
    "inside": COUNT,
}

_SCALE: Final[Mapping[str, Check]] = {
    "scale": real_number(above=0),
    "growth_factor": real_number(least=1),
    "backoff_factor": real_number(above=0, most=1),
    "growth_interval": whole_number(least=1, most=2**31 - 1),
    "_growth_tracker": whole_number(most=2**31 - 1),
}

_AVERAGE: Final[Mapping[str, Check]] = {
    "decay": anything,
    "warm_up": check_flag,
    "start": COUNT,
    "count": COUNT,
    "weights": mapping,
}

_WINDOW: Final[Mapping[str, Check]] = {
    "batches": listed,
    "losses": listed,
    "weights": listed,
    "weighted": anything,
    "gradients": mapping,
    "scale": real_number(above=0),
}
