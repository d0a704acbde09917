"""How long a run is, in epochs, batches and windows, and how many batches make a window."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from optimscheduler.errors import ConfigError
from optimscheduler.run.config import RunConfig

__all__ = ["Horizon", "accumulation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How long a run is.

    Attributes:
        epochs: passes through the data.
        batches: per epoch, those that are run.
        accum_grad: batches per window.
        carry: windows go on from one epoch into the next.
        dropped: batches of an epoch that are not run.
    """

    epochs: int
    batches: int
    accum_grad: int
    carry: bool
    dropped: int = 0

    @classmethod
    def of(cls, config: RunConfig, batches: int, accum_grads: Collection[int]) -> Horizon:
        """The horizon of a configuration whose data give so many batches per epoch.

        Args:
            config: checked.
            batches: per epoch.
            accum_grads: the OptimSchedulers'; windows are counted by the smallest.

        Raises:
            ConfigError: `drop` leaves nothing.
        """
        together = math.lcm(*accum_grads)  # where the windows of all of them end
        dropped = batches % together if config.partial_window == "drop" else 0
        if dropped == batches:
            raise ConfigError(
                f"partial_window: 'drop' leaves nothing to train on: an epoch has {batches} batches, fewer "
                f"than accum_grad={together}; write apply or carry, or a smaller batch_size"
            )
        return cls(
            epochs=config.num_epochs,
            batches=batches - dropped,
            accum_grad=min(accum_grads),
            carry=config.partial_window == "carry",
            dropped=dropped,
        )

    @property
    def windows(self) -> int:
        """Windows of the whole run, the last one maybe short."""
        if self.carry:
            return -(-self.epochs * self.batches // self.accum_grad)
        return self.epochs * -(-self.batches // self.accum_grad)

    @property
    def windows_per_epoch(self) -> float:
        """Windows of an epoch; no whole number where they are carried over."""
        return self.batches / self.accum_grad if self.carry else -(-self.batches // self.accum_grad)

    def windows_before(self, epoch: int, batch: int) -> int:
        """Windows that are closed when so many batches of an epoch (from 1) are done."""
        if self.carry:
            return ((epoch - 1) * self.batches + batch) // self.accum_grad
        full = batch // self.accum_grad if batch < self.batches else -(-batch // self.accum_grad)
        return (epoch - 1) * -(-self.batches // self.accum_grad) + full

    def epoch_of(self, real_step: int) -> int:
        """The epoch in which a window is closed."""
        if self.carry:
            return min(-(-real_step * self.accum_grad // self.batches), self.epochs)
        return (real_step - 1) // -(-self.batches // self.accum_grad) + 1

    def ends_window(self, epoch: int, batch: int) -> bool:
        """Whether a batch of an epoch (both from 1) must end its window, though that may not be full."""
        return batch == self.batches and (not self.carry or epoch == self.epochs)


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
