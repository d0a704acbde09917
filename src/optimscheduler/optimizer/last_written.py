"""Numbers of an optimizer's groups that several hands write, and who has written them last."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimscheduler._torch_compat import version_of

__all__ = ["LastWritten", "number_at"]

_PLACE: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")

Spot = tuple[int, str]  # number of a group, place in it


class LastWritten:
    """What we left at some spots, so that what others write there is noticed.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    >>> left = LastWritten(optimizer, [(0, "lr")])
    >>> left.put((0, "lr"), 0.25)
    >>> left.touched((0, "lr")), optimizer.param_groups[0]["lr"]
    (False, 0.25)
    >>> optimizer.param_groups[0]["lr"] = 0.1
    >>> left.touched((0, "lr")), left.held((0, "lr"))
    (True, 0.1)

    Args:
        optimizer: whose groups these are; what they hold now is ours.
        spots: number of a group, and `"lr"`, or `"betas[0]"` for one of several numbers.
    """

    def __init__(self, optimizer: Optimizer, spots: Iterable[Spot]) -> None:
        self._optimizer = optimizer
        self._values: dict[Spot, float] = dict.fromkeys(spots, 0.0)
        self._marks: dict[Spot, object] = {}
        self.keep(self._values)

    def touched(self, spot: Spot) -> bool:
        """Whether somebody else has written there since; a tensor that is as it was is not read."""
        held = self._at(spot)
        return self._marks[spot] != _mark(held) and float(held) != self._values[spot]

    def held(self, spot: Spot) -> float:
        """What is there now, whoever has written it."""
        held = self._at(spot)
        if not isinstance(held, Tensor):
            return float(held)
        return float(held) if self.touched(spot) else self._values[spot]

    def put(self, spot: Spot, value: float) -> None:
        """Write a number. A tensor stays the same tensor, as torch's schedulers leave it."""
        i, place = spot
        group, (key, part), held = self._optimizer.param_groups[i], _parts(place), self._at(spot)
        if isinstance(held, Tensor):
            with torch.no_grad():
                held.fill_(value)
            value = torch.tensor(value, dtype=held.dtype).item()
        elif part is None:
            group[key] = value
        else:
            group[key] = (*group[key][:part], value, *group[key][part + 1 :])
        self._values[spot], self._marks[spot] = value, _mark(self._at(spot))

    def renew(self, spot: Spot, value: float) -> bool:
        """Write a number over ours, the quick way; not where a tensor or somebody else's number stands.

        Returns:
            Whether it was written.
        """
        group, place, ours = self._optimizer.param_groups[spot[0]], spot[1], self._marks[spot]
        if type(ours) is not float or group.get(place) is not ours:
            return False
        group[place] = self._values[spot] = self._marks[spot] = value
        return True

    def keep(self, spots: Iterable[Spot]) -> None:
        """What these spots hold is ours, whoever has written it."""
        for spot in spots:
            self._values[spot], self._marks[spot] = float(self._at(spot)), _mark(self._at(spot))

    def state_dict(self) -> list[list[Any]]:
        """Group, place and number, for every spot. Any: plain values."""
        return [[*spot, value] for spot, value in self._values.items()]

    def load_state_dict(self, state: Sequence[Sequence[Any]]) -> None:
        """Take those for what was left, at the spots that are here too."""
        for i, place, value in state:
            if (i, place) in self._values:
                self._values[i, place], self._marks[i, place] = float(value), None

    def _at(self, spot: Spot) -> Any:  # Any: a number, or a tensor of one
        return number_at(self._optimizer.param_groups[spot[0]], spot[1])


def number_at(group: Mapping[str, Any], place: str) -> Any:  # Any: whatever stands there
    """What a group holds at a place, `"lr"` or `"betas[0]"`."""
    key, part = _parts(place)
    return group[key] if part is None else group[key][part]


@functools.cache
def _parts(place: str) -> tuple[str, int | None]:
    match = _PLACE.fullmatch(place)
    assert match is not None  # `scheduled_numbers` has found it
    return match[1], None if match[2] is None else int(match[2])


def _mark(held: object) -> object:
    """Stands for a value that was not written since: of a tensor, without waiting for its device."""
    if not isinstance(held, Tensor):
        return held
    version = version_of(held)
    return object() if version is None else (id(held), version)  # nothing is like an object
