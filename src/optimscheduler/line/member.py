"""What one OptimScheduler brings to the line of a batch, and what it tells of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler.errors import ConfigError
from optimscheduler.gradients import Gradients, gradients_for
from optimscheduler.line.lr_hook import LrHook
from optimscheduler.optimizer.build import may_be_fused
from optimscheduler.optimizer.hyperparameters import Hyperparameters
from optimscheduler.optimizer.modes import check_trains
from optimscheduler.parameters.owned import OwnedParameters, own_again
from optimscheduler.reports.ledger import Ledger, StepReport
from optimscheduler.scalars import Flag, Scalar
from optimscheduler.update.clip import Clip
from optimscheduler.update.guard import Guard
from optimscheduler.update.weight_average import WeightAverage
from optimscheduler.window.clock import Clock
from optimscheduler.window.window import Window

__all__ = ["Member"]

_NOT_REACHED: Final = (
    "it does not depend on them. Is it the right loss (optim_loss), or was something detached or frozen on "
    "the way?"
)
_LOOK: Final = 256  # updates

_REPLACED: Final = (
    "the model no longer has them. Put those that replace them (as load_state_dict(assign=True) does) into "
    "optim.optimizer.param_groups[i]['params'], or build a new OptimScheduler"
)


@dataclass(slots=True, kw_only=True)
class Member:
    """One of each part that is an OptimScheduler's own.

    `layout` is where small parameters are to lie. `lr_hook` says the learning rate of a window, or of an
    update with `lr_counts_applied`; `feedback` is the state of a feedback schedule. Every `check_every`
    updates, 0 is never, the ranks are compared in `config`, plain values, in batch number and weights.
    `averages` follow the weights; the model has theirs while it is `lent`. `moded` says that the optimizer
    has `train()` and `eval()`.
    """

    loss: str
    owned: OwnedParameters
    optimizer: Optimizer
    layout: str
    clock: Clock
    gradients: Gradients
    clip: Clip
    guard: Guard
    lr_hook: LrHook
    values: Hyperparameters
    ledger: Ledger
    lr_counts_applied: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    check_every: int = 0
    feedback: Any = None  # Any: whatever plain tree the schedule keeps
    window: Window = field(default_factory=Window)
    averages: list[WeightAverage] = field(default_factory=list)
    lent: bool = False
    said_missing: bool = False
    said_none: bool = False
    said_frozen: bool = False
    moded: bool = False
    updates: int = 0
    blocks: int = -1  # of gradients, in the last window
    fewest: float = math.inf  # parameters with a gradient, of all windows
    said_new_parameters: set[str] = field(default_factory=set)

    def follow(self, model: nn.Module) -> None:
        """Parameters were replaced in the groups of the user's optimizer: own what is there now.

        Args:
            model: that has the parameters.

        Raises:
            ParameterError: what is there is not the model's.
        """
        self.owned = own_again(self.owned, model, self.optimizer)
        self.gradients.release()
        groups = [group.parameters for group in self.owned.groups]
        fused = may_be_fused(self.optimizer)
        self.gradients = gradients_for(groups, self.optimizer, model, self.layout, fused=fused)

    def check_own_weights(self, what: str) -> None:
        """Check that the model has its own weights, and not averaged ones.

        Raises:
            ConfigError: it has not; `what` may not be done then.
        """
        if self.lent:
            raise ConfigError(
                f"{what}: the model has averaged weights, inside average.applied(); do it after that block"
            )

    def check_trains(self, name: str) -> None:
        """Check that an optimizer that has modes is in the one for training; see `modes`."""
        if self.moded:
            check_trains(self.optimizer, name)

    def write(self, real_step: int, epoch: int) -> None:
        """Write into the groups what an update at a real step, in an epoch, is made with.

        Raises:
            ConfigError: the hook returns no learning rate.
        """
        step = self.ledger.applied + 1 if self.lr_counts_applied else real_step
        self.values.write(math.nan if self.values.sets_own else self.lr_hook.at(step, epoch), step)

    def drop(self) -> None:
        """Forget the open window and its gradients."""
        self.window.clear()
        self.gradients.clear()

    def say_missing(self, logger: logging.Logger) -> None:
        """Say which parameters its loss gives no gradient to, once, at the first complete window."""
        missing = [] if self.said_missing else self.gradients.missing()
        self.said_missing = True
        if missing:
            logger.warning(
                "loss %r gives no gradient to %d of its parameters: %s",
                self.loss,
                len(missing),
                _listed(missing),
            )

    def say_new_parameters(self, model: nn.Module, blocks: int, logger: logging.Logger) -> None:
        """Say which parameters of the model are in no optimizer because they came later.

        A look at all of them takes time. So it is taken when fewer than ever have a gradient, as after a
        module was replaced, after 1, 2, 4, 8, ... updates, and every 256.

        Args:
            model: that has the parameters.
            blocks: of gradients there are; as many as the last time come of as many parameters.
            logger: where to.
        """
        anyway = not self.updates & (self.updates - 1) or self.updates % _LOOK == 0
        if blocks == self.blocks and not anyway:
            return
        self.blocks, present = blocks, self.gradients.present()
        if present >= self.fewest and not anyway:
            return
        self.fewest = min(self.fewest, present)
        new_parameters = [
            name for name in self.owned.new_parameters(model) if name not in self.said_new_parameters
        ]
        self.said_new_parameters.update(new_parameters)
        if new_parameters:
            logger.warning(
                "parameters that came into the model later are in no optimizer and do not train: %s. "
                "Append them: optim.optimizer.param_groups[0]['params'] += [...]. If they replace others, "
                "take those out of the list. Or build a new OptimScheduler",
                _listed(new_parameters),
            )

    def idles(self, name: str, logger: logging.Logger) -> bool:
        """Whether all its parameters are frozen; said once."""
        parameters = self.gradients.parameters
        if parameters[0].requires_grad or any(parameter.requires_grad for parameter in parameters):
            return False
        if not self.said_frozen:
            self.said_frozen = True
            logger.warning(
                "OptimScheduler %r idles: all its %d parameters are frozen (requires_grad=False). It goes on "
                "when they are not; in alternating training, step(losses, only=[...]) names who takes part",
                name,
                len(self.gradients.parameters),
            )
        return True

    def say_none(self, model: nn.Module, logger: logging.Logger) -> None:
        """Say that its loss gives no gradient to any parameter, and why, once.

        Args:
            model: that should have the parameters.
            logger: where to.
        """
        if not self.said_none:
            there = {id(parameter) for parameter in model.parameters()}
            kept = any(id(parameter) in there for parameter in self.gradients.parameters)
            logger.warning(
                "loss %r gives no gradient to any of its %d parameters, so nothing is updated: %s",
                self.loss,
                len(self.gradients.parameters),
                _NOT_REACHED if kept else _REPLACED,
            )
        self.said_none = True

    def report(
        self,
        loss: Tensor | None = None,
        *,
        completes: bool = False,
        updated: Flag = False,
        skipped: Flag = False,
        grad_norm: Scalar | None = None,
    ) -> StepReport:
        """What its last batch came to; without a `loss`, that of the open window."""
        return StepReport(
            batch=self.clock.batch,
            epoch=self.clock.epoch,
            real_step=self.clock.real_step,
            lr=self.values.lr,
            completes=completes,
            batches=len(self.window.batches),
            updated=updated,
            skipped=skipped,
            grad_norm=grad_norm,
            loss=self.window.loss if loss is None else loss,
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
