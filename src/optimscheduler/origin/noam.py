"""`Noamlr`: linear warm-up, then the inverse square root of the real step."""

from __future__ import annotations

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.checks import whole

__all__ = ["NoamLr", "Noamlr"]


class Noamlr(OptimScheduler):
    """The schedule of the Transformer, with its peak at `real_step = warmup_steps`.

        lr(s) = base * sqrt(w) * min(s ** -0.5, s * w ** -1.5)        without d_model: the peak is base
        lr(s) = d_model ** -0.5 * min(s ** -0.5, s * w ** -1.5)       with d_model: base plays no part

    Args:
        d_model: width of the model, >= 1, for the original form; None for the one with a peak of
            `optim_conf["lr"]`.
        warmup_steps: w, real steps until the peak, >= 1.

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 5.3.

    >>> from torch import nn
    >>> Noamlr("Adam", {"lr": 2e-3}, nn.Linear(2, 1), use_amp=False)
    Noamlr(optimizer=Adam, optim_loss=None, updated_modules=None, d_model=None, warmup_steps=4000)
    """

    def sche_init(self, d_model: int | None = None, warmup_steps: int = 4000) -> None:
        """Check and keep the two arguments."""
        self.d_model = None if d_model is None else whole("Noamlr: d_model", d_model, least=1)
        self.warmup_steps = whole("Noamlr: warmup_steps", warmup_steps, least=1, unit="real steps")
        self.init_lr = self.get_lr()

    def update_lr(self, real_step: int, epoch_num: int) -> float:  # noqa: ARG002  # the hook's signature
        """The formula of the class."""
        w = self.warmup_steps
        shape: float = min(real_step**-0.5, real_step * w**-1.5)
        scale: float = self.init_lr * w**0.5 if self.d_model is None else self.d_model**-0.5
        return scale * shape

    def extra_repr_fn(self) -> str:
        """The two arguments."""
        return f"d_model={self.d_model}, warmup_steps={self.warmup_steps}"


NoamLr = Noamlr
"""The name that the origin's README uses."""
