"""R03: the learning rate of every group, in proportion to its own base."""

from __future__ import annotations

import torch
from torch import nn

from optimscheduler.values import Values


def an_optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates], lr=1.0)


def test_R03_every_group_keeps_its_ratio() -> None:
    optimizer = an_optimizer(0.5, 0.25, 2.0, 0.0)
    values = Values(optimizer, 0.5, 0.1)
    assert values.lr == 0.5, "before the first update the base"
    for _ in range(2):  # again and again: ratios are to the base, not to what was written last
        values.write(8.0)
        # 0.1 x 8 x (1, 1/2, 4, 0)
        assert [group["lr"] for group in optimizer.param_groups] == [0.8, 0.4, 3.2, 0.0]
    assert values.lr == 0.8


def test_R03_a_rate_of_0_is_a_rate() -> None:
    optimizer = an_optimizer(0.5, 0.25)
    values = Values(optimizer, 0.5, 1.0)
    values.write(0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    values.write(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
