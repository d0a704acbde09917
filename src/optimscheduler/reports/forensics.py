"""Where a refused gradient comes from: which batches, which parameters, which rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from optimscheduler.gradients import Gradients
from optimscheduler.shards import local
from optimscheduler.window.window import Window

__all__ = ["Refusal", "listed", "refusal_of"]

_NAMED = 5  # parameters named in one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A window whose gradient was refused. What could only be known by waiting for a device is not said.

    Attributes:
        loss: its name.
        real_step: number of the window, from 1.
        batches: in it.
        norm: of the gradient; None where it was not looked at.
        bad_batches: whose loss was not finite.
        ranks: where it was not; None in a single process.
        parameters: canonical names of those whose gradient is not finite; where the norm is, a spike,
            the largest first.
        gradients: how many there are.
        together: names of the members that the norm is of, where it is of several.
    """

    loss: str
    real_step: int
    batches: tuple[int, ...]
    norm: float | None = None
    bad_batches: tuple[int, ...] = ()
    ranks: tuple[int, ...] | None = None
    parameters: tuple[str, ...] = ()
    gradients: int = 0
    together: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"real step {self.real_step} (batches {listed(self.batches)}) of loss {self.loss!r} skipped"
        if self.norm is None:
            return text
        of = f" of {', '.join(self.together)} together" if self.together else ""
        return f"{text}: gradient norm {self.norm:g}{of}; {self._blame(self.norm)}"

    def _blame(self, norm: float) -> str:
        told = ""
        if self.bad_batches:
            told = f"the loss itself was not finite in batches {listed(self.bad_batches)}; "
        if self.ranks is not None:
            told += f"on rank {listed(self.ranks)}; " if self.ranks else "rank unknown, already averaged; "
        named, more = ", ".join(self.parameters[:_NAMED]), len(self.parameters) - _NAMED
        if math.isfinite(norm):
            return f"{told}a spike, the largest gradients are those of {named}"
        if not self.parameters and self.together:
            return f"{told}every gradient of its own is finite, look at the others"
        if not self.parameters:
            return f"{told}every gradient is finite, but their norm overflows"
        rest = f" and {more} more" if more > 0 else ""
        return f"{told}not finite in {named}{rest} ({len(self.parameters)} of {self.gradients} gradients)"


def refusal_of(
    loss: str,
    real_step: int,
    window: Window,
    norm: float,
    gradients: Gradients,
    blamed: Tensor | None,
    together: Sequence[str] = (),
) -> Refusal:
    """Look for where it comes from, while the gradients are still there.

    Args:
        loss: its name.
        real_step: number of the window.
        window: closed.
        norm: of the gradient.
        gradients: as they would have been applied.
        blamed: shape (ranks,), true where the loss was not finite; None in a single process.
        together: names of the members that the norm is of, where it is of several.
    """
    named = {name: local(gradient) for name, gradient in gradients.by_name().items()}
    if math.isfinite(norm):
        found = sorted(named, key=lambda name: -float(named[name].norm()))
    else:
        found = [name for name, gradient in named.items() if not _is_finite(gradient)]
    return Refusal(
        loss=loss,
        real_step=real_step,
        batches=tuple(window.batches),
        norm=norm,
        bad_batches=tuple(batch for batch, loss in window.counting if not loss.isfinite()),
        ranks=None if blamed is None else tuple(blamed.nonzero().flatten().tolist()),
        parameters=tuple(found),
        gradients=len(named),
        together=tuple(together),
    )


def _is_finite(gradient: Tensor) -> bool:
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return bool(values.isfinite().all())


def listed(batches: Sequence[int]) -> str:
    """Batch numbers in short: `3`, `3, 4`, `3 to 18`.

    >>> listed([3, 4]), listed([3, 4, 5, 6])
    ('3, 4', '3 to 6')
    """
    return ", ".join(map(str, batches)) if len(batches) < 4 else f"{batches[0]} to {batches[-1]}"
