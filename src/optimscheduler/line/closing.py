"""Close windows: from the gradients of a complete window to the moved weights, steps 4 to 10 of the line.

A member is closed by itself, or with others whose gradients are clipped by one norm (`clip_together`). Those
meet, are divided and measured one after the other; then one decision and one factor are for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from optimscheduler._torch_compat import multiply_all_
from optimscheduler.backward.precision import Precision
from optimscheduler.errors import NonFiniteError
from optimscheduler.line.member import Member
from optimscheduler.reports.ledger import StepReport
from optimscheduler.scalars import Flag, Scalar, is_not, seen
from optimscheduler.sync import GradientSync, ReducedWindow
from optimscheduler.update.apply import Kernel, kernel_for

__all__ = ["Closing", "joint_norm"]

_Timer = Callable[[list[str]], AbstractContextManager[Any]]

_ALONE: Final = ()


@dataclass(slots=True)
class _Gathered:
    """The gradient of a complete window, which is the same on all ranks.

    Attributes:
        met: what the ranks know of it.
        real_step: number of the window.
        scale: of the loss.
        kernel: that will apply it.
        divisor: what is left to divide it by.
        norm: of it, divided, before clipping.
    """

    met: ReducedWindow
    real_step: int
    scale: Scalar
    kernel: Kernel
    divisor: Scalar
    norm: Scalar


class Closing:
    """Updates members whose windows are complete. Call it with gradients disabled.

    Args:
        model: wrapped or not.
        precision: with the loss scales.
        sync: how the gradients of the ranks meet.
    """

    def __init__(self, model: nn.Module, precision: Precision, sync: GradientSync) -> None:
        self._model, self._precision, self._sync = model, precision, sync

    def alone(self, m: Member, logger: logging.Logger) -> StepReport:
        """Update one member.

        Raises:
            NonFiniteError: more than `max_skips` of its gradients in a row were refused.
        """
        gathered = self._gather(m, logger)
        if isinstance(gathered, StepReport):
            return gathered
        accepted = m.guard.accepts(gathered.norm)
        factor = m.clip.factor(self._limited(m, gathered, accepted))
        return self._apply(m, gathered, gathered.norm, accepted, factor, _ALONE, logger)

    def together(
        self, members: Mapping[str, Member], timer: _Timer, logger: logging.Logger
    ) -> tuple[dict[str, StepReport], list[NonFiniteError]]:
        """Update several members by one norm, one decision and one factor; what has no gradient is left out.

        Args:
            members: name -> member, with clipping and guard in common.
            timer: entered for each, once for its norm and once for its update.
            logger: for refusals.

        Returns:
            Name -> report, and the errors of those of which too many were refused in a row.
        """
        reports: dict[str, StepReport] = {}
        there: dict[str, _Gathered] = {}
        for name, m in members.items():
            with timer(["optim_time", name]):
                gathered = self._gather(m, logger)
            if isinstance(gathered, StepReport):
                reports[name] = gathered
            else:
                there[name] = gathered
        if not there:
            return reports, []
        first = next(iter(members.values()))
        norm = joint_norm([g.norm for g in there.values()], first.clip.norm_type)
        accepted = first.guard.accepts(norm)
        left = [self._limited(members[name], g, accepted) for name, g in there.items()]
        factor = first.clip.factor(joint_norm(left, first.clip.norm_type))
        errors: list[NonFiniteError] = []
        for name, g in there.items():
            try:
                with timer(["optim_time", name]):
                    reports[name] = self._apply(
                        members[name], g, norm, accepted, factor, tuple(there), logger
                    )
            except NonFiniteError as error:
                errors.append(error)
        return reports, errors

    def _gather(self, m: Member, logger: logging.Logger) -> _Gathered | StepReport:
        """Let the ranks meet, divide and measure; where there is nothing to apply, the report says so."""
        real_step, met = (
            m.clock.real_step,
            self._sync.reduce(m.gradients, m.window, checked=m.check_every > 0),
        )
        if isinstance(met.weight, float) and met.weight == 0:
            return m.report(completes=True)
        m.gradients.apply_layout(alike=met.alike, watched=met.watched)
        m.say_missing(logger)
        blocks = m.gradients.blocks()
        m.say_new_parameters(self._model, len(blocks), logger)
        if not blocks:
            m.say_none(self._model, logger)
            return m.report(met.loss, completes=True)
        scale = self._precision.scale(m.loss)
        kernel = kernel_for(m.gradients.stepped, watched=met.watched)
        divisor = kernel.divide(m.gradients, _positive(met.weight) * scale)
        norm, dtype = self._sync.norm(m.gradients, m.clip.norm_type)
        if not m.gradients.bit_for_bit:
            norm, divisor = seen(norm), seen(divisor)
        return _Gathered(met, real_step, scale, kernel, divisor, m.clip.applied(norm, divisor, dtype))

    def _limited(self, m: Member, g: _Gathered, accepted: Flag) -> Scalar:
        """Clip part by part, where that is asked for; the norm of what is left of the gradient."""
        if not m.clip.limit.acts:
            return g.norm
        if isinstance(g.divisor, Tensor) or g.divisor != 1.0:
            multiply_all_(m.gradients.blocks(), 1.0 / g.divisor)
            g.divisor = 1.0
        m.clip.limit.apply(m.gradients, accepted)
        if m.clip.max_norm is None:
            return g.norm
        norm, _ = self._sync.norm(m.gradients, m.clip.norm_type)
        return norm if m.gradients.bit_for_bit else seen(norm)

    def _apply(
        self,
        m: Member,
        g: _Gathered,
        norm: Scalar,
        accepted: Flag,
        factor: Scalar,
        together: Sequence[str],
        logger: logging.Logger,
    ) -> StepReport:
        """Write the values, move the weights or not, enter what became of the window."""
        moves = accepted if isinstance(g.met.weight, float) else accepted & (g.met.weight > 0)
        m.write(g.real_step, m.clock.epoch)
        m.gradients.before_step()
        for average in m.averages:
            average.before_update(m.gradients)
        g.kernel.apply(m.gradients, factor, g.divisor, moves)
        m.gradients.after_step(moves)
        for average in m.averages:
            average.after_update(moves)
        self._precision.record(m.loss, g.norm, g.met.loss)
        if m.check_every and m.updates % m.check_every == 0:
            self._sync.compare(m.config, {"batch number": m.clock.batch}, m.gradients.parameters)
        m.updates += 1
        m.ledger.record(
            m.window,
            g.real_step,
            norm,
            accepted,
            m.gradients,
            scale=g.scale,
            lr=m.values.lr,
            blamed=g.met.blamed,
            advice=m.guard.advice,
            together=together,
            logger=logger,
        )
        return m.report(g.met.loss, completes=True, updated=moves, skipped=is_not(accepted), grad_norm=norm)


def joint_norm(norms: Sequence[Scalar], norm_type: float) -> Scalar:
    """The p-norm of vectors whose norms these are.

    Args:
        norms: numbers, or 0-d tensors anywhere.
        norm_type: p >= 1 or `inf`.

    Returns:
        A number where none of them is on an accelerator, otherwise a 0-d tensor on the first of those.

    >>> joint_norm([3.0, 4.0], 2.0)
    5.0
    """
    if len(norms) == 1:
        return norms[0]
    norms = [seen(norm) for norm in norms]
    far = [norm for norm in norms if isinstance(norm, Tensor)]
    if not far:
        return float(torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float64), norm_type))
    device, dtype = far[0].device, max((norm.dtype for norm in far), key=lambda dtype: dtype.itemsize)
    met = torch.stack([torch.as_tensor(norm, dtype=dtype, device=device) for norm in norms])
    joint: Tensor = torch.linalg.vector_norm(met, norm_type)
    return joint


def _positive(total: Scalar) -> Scalar:
    """The divisor, 1 where it would be 0: nothing is applied then."""
    return torch.where(total > 0, total, 1.0) if isinstance(total, Tensor) else total
