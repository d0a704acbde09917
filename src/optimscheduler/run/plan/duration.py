"""How long a run is, in epochs, batches and windows, and how many batches make a window."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.schema import RunConfig

__all__ = ["Horizon", "accumulation"]

_MOST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How long a run is.

    Attributes:
        epochs: passes through the data.
        batches: per epoch, those that are run.
        accum_grad: batches per window.
        carry: windows go on from one epoch into the next.
        dropped: batches of an epoch that are not run.
        last: epoch and batch of it, both from 1, that end the run where that is before the last epoch's end.
    """

    epochs: int
    batches: int
    accum_grad: int
    carry: bool
    dropped: int = 0
    last: tuple[int, int] | None = None

    @classmethod
    def of(cls, config: RunConfig, batches: int, accum_grads: Collection[int]) -> Horizon:
        """The horizon of a configuration whose data give so many batches per epoch.

        Args:
            config: checked.
            batches: per epoch.
            accum_grads: the OptimSchedulers'; windows are counted by the smallest.

        Raises:
            ConfigError: `drop` leaves nothing, or the run is longer than can be counted.
        """
        together = math.lcm(*accum_grads)  # where the windows of all of them end
        dropped = batches % together if config.partial_window == "drop" else 0
        if dropped == batches:
            raise ConfigError(
                f"partial_window: 'drop' leaves nothing to train on: an epoch has {batches} batches, fewer "
                f"than accum_grad={together}; write apply or carry, or a smaller batch_size"
            )
        whole = cls(
            epochs=config.num_epochs,
            batches=batches - dropped,
            accum_grad=min(accum_grads),
            carry=config.partial_window == "carry",
            dropped=dropped,
        )
        steps = config.num_steps
        if whole.windows > _MOST:
            raise ConfigError(
                f"num_epochs: {config.num_epochs} epochs are {whole.windows} windows, "
                "and at most 2^63 - 1 can be counted"
            )
        return replace(whole, last=whole._end_of(steps)) if steps and steps < whole.windows else whole

    def _end_of(self, window: int) -> tuple[int, int]:
        """Epoch and batch of it with which a window ends."""
        if self.carry:
            epoch, batch = divmod(window * self.accum_grad - 1, self.batches)
            return epoch + 1, batch + 1
        epoch, before = divmod(window - 1, int(self.windows_per_epoch))
        return epoch + 1, min((before + 1) * self.accum_grad, self.batches)

    def batches_of(self, epoch: int) -> int:
        """Batches of an epoch that are run."""
        return self.last[1] if self.last and epoch == self.last[0] else self.batches

    def is_over(self, epoch: int, batch: int) -> bool:
        """Whether nothing comes after so many batches of an epoch."""
        return epoch > self.epochs or (self.last is not None and (epoch, batch) >= self.last)

    @property
    def windows(self) -> int:
        """Windows of the whole run, the last one maybe short."""
        epochs, batches = self.last or (self.epochs, self.batches)
        if self.carry:
            return -(-self.batches_in_all // self.accum_grad)
        return (epochs - 1) * int(self.windows_per_epoch) - (-batches // self.accum_grad)

    @property
    def batches_in_all(self) -> int:
        """Batches of the whole run."""
        epochs, batches = self.last or (self.epochs, self.batches)
        return (epochs - 1) * self.batches + batches

    @property
    def windows_per_epoch(self) -> float:
        """Windows of an epoch; no whole number where they are carried over."""
        return self.batches / self.accum_grad if self.carry else -(-self.batches // self.accum_grad)

    def windows_before(self, epoch: int, batch: int) -> int:
        """Windows that are closed when so many batches of an epoch (from 1) are done."""
        if self.is_over(epoch, batch):
            return self.windows
        before = (epoch - 1) * self.batches if self.carry else 0
        short = self.ends_window(epoch, batch) and (before + batch) % self.accum_grad > 0
        windows = (before + batch) // self.accum_grad + short
        return windows if self.carry else (epoch - 1) * int(self.windows_per_epoch) + windows

    def epoch_of(self, real_step: int) -> int:
        """The epoch in which a window is closed."""
        if self.carry:
            return min(-(-real_step * self.accum_grad // self.batches), self.epochs)
        return (real_step - 1) // -(-self.batches // self.accum_grad) + 1

    def ends_window(self, epoch: int, batch: int) -> bool:
        """Whether a batch of an epoch (both from 1) must end its window, though that may not be full."""
        ends = (epoch, batch) == self.last or (batch == self.batches and epoch == self.epochs)
        return ends or (batch == self.batches and not self.carry)


def accumulation(config: RunConfig, ranks: int, tokens_per_item: object) -> int:
    """Batches per window: `accum_grad`, or what makes so many samples or tokens per update.

    Args:
        config: checked.
        ranks: each with `batch_size` items per batch.
        tokens_per_item: what the training data say.

    Raises:
        ConfigError: two of the three were given, or it does not come out even.
    """
    keys = ("accum_grad", "samples_per_update", "tokens_per_update")
    given = [key for key in keys if getattr(config, key) is not None]
    if len(given) > 1:
        raise ConfigError(f"{given[1]}: {given[0]} is given too; both say how long a window is, so give one")
    if not given or given == ["accum_grad"]:
        return config.accum_grad or 1
    per_batch, unit = config.data_cfg.batch_size * ranks, "samples"
    told = f"batch_size {config.data_cfg.batch_size} x {ranks} ranks" if ranks > 1 else "batch_size"
    if given == ["tokens_per_update"]:
        if not isinstance(tokens_per_item, int) or tokens_per_item < 1:
            raise ConfigError(
                "tokens_per_update: the training data must say how many tokens an item has, in an attribute "
                "tokens_per_item; without one, write samples_per_update"
            )
        per_batch, unit, told = per_batch * tokens_per_item, "tokens", f"{told} x {tokens_per_item} tokens"
    wanted = int(getattr(config, given[0]))
    if wanted % per_batch:
        below = wanted // per_batch * per_batch
        near = f"{below} or {below + per_batch}" if below else f"{per_batch}"
        raise ConfigError(
            f"{given[0]}: {wanted} is no multiple of the {per_batch} {unit} of a batch ({told}); write {near}"
        )
    return wanted // per_batch
