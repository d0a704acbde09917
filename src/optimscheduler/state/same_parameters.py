"""Which parameters of a saved state are those of now: by canonical name and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from optimscheduler.line.member import Member

__all__ = ["fitting_parameters", "misfits", "shape_of"]


def fitting_parameters(m: Member, state: Mapping[str, Any]) -> dict[str, nn.Parameter]:
    """The parameters of the same name and shape."""
    owned, shapes = m.owned.by_name, state["parameters"]
    return {n: p for n, p in owned.items() if n in shapes and shapes[n] in (None, shape_of(p))}


def misfits(m: Member, state: Mapping[str, Any]) -> list[str]:
    """A line for every parameter whose optimizer state starts anew here, or is of no use here."""
    missing, gone = _differences(state["parameters"], m.owned.by_name)
    kept = state["optimizer"].get("present", state["optimizer"]["state"])
    return missing + [line for name, line in gone.items() if name in kept or not kept]


def shape_of(parameter: nn.Parameter) -> list[int] | None:
    """Its shape; None of a lazy one."""
    return None if is_lazy(parameter) else list(parameter.shape)


def _differences(
    saved: Mapping[str, Sequence[int] | None], now: Mapping[str, nn.Parameter]
) -> tuple[list[str], dict[str, str]]:
    """Where the parameters of a saved state and those of now differ.

    Args:
        saved: canonical name -> shape in the checkpoint; None of a lazy one.
        now: canonical name -> parameter.

    Returns:
        A line for every parameter that is missing in the checkpoint or has another shape there; and for those
        that are in the checkpoint alone, name -> line.
    """
    lines = [f"{name} is not in the checkpoint" for name in now if name not in saved]
    for name in (name for name in saved if name in now):
        there, here = saved[name], shape_of(now[name])
        if there is not None and here is not None and list(there) != here:
            lines.append(f"{name} has shape {tuple(there)} in the checkpoint, {tuple(here)} here")
    return lines, {name: f"{name} is in the checkpoint alone" for name in saved if name not in now}
