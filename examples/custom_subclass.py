"""A learning rate of your own: override `sche_init` and `update_lr`. python examples/custom_subclass.py."""

from typing import Any

import torch
from torch import nn

from optimscheduler import OptimScheduler


class Staircase(OptimScheduler):
    """Divides the learning rate by `factor` at the start of each of the given epochs."""

    def sche_init(self, epochs: list[int], factor: float = 10.0) -> None:
        """Keep the arguments; `self.get_lr()` is the base learning rate here."""
        self.epochs, self.factor = epochs, factor
        self.base = self.get_lr()

    def update_lr(self, real_step: int, epoch_num: int) -> float:  # noqa: ARG002  # epochs are enough here
        """Called by keyword once per update, just before it."""
        return self.base / self.factor ** sum(epoch_num >= epoch for epoch in self.epochs)

    def extra_repr_fn(self) -> str:
        """What `repr` adds."""
        return f"epochs={self.epochs}, factor={self.factor}"


def main() -> None:
    """Fit a line, three epochs."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    conf: dict[str, Any] = {"optim_type": "SGD", "optim_conf": {"lr": 0.5}}
    optim = Staircase(model=model, epochs=[2, 3], **conf)
    print(optim)
    for epoch in range(1, 4):
        for _ in range(20):
            x = torch.rand(32, 1)
            with optim.forward():
                losses = {"loss": (model(x) - (3 * x + 1)).square().mean()}
            report = optim.step(losses, epoch_num=epoch)
        print(f"epoch {epoch}, {report}")


if __name__ == "__main__":
    main()
