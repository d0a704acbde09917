"""R43: a loop inside an autocast of the caller's, which keeps its copies of the weights until it ends."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from optimscheduler import OptimSchedulerDict
from tests.cases_models import TwoParts, optim_of


def losses_of_a_loop(use_amp: object, outer: bool, several: bool) -> list[float]:
    model, seen = TwoParts(), []
    parts = {"a": "encoder", "b": "decoder"} if several else {"a": None}
    members = {n: optim_of(model, use_amp=use_amp, updated_modules=part) for n, part in parts.items()}
    optims = OptimSchedulerDict(members)
    around = torch.autocast("cpu", torch.bfloat16) if outer else nullcontext()
    with around:
        for _ in range(4):
            with optims.forward(), torch.autocast("cpu", torch.bfloat16):
                losses = model(torch.ones(2, 3))
            seen.append(losses["loss"].item())
            optims.step(losses)
    return seen


@pytest.mark.parametrize("several", [True, False], ids=["dict", "one"])
@pytest.mark.parametrize("use_amp", [False, "bf16"])
def test_R43_inside_an_outer_autocast_the_forward_sees_every_update(use_amp: object, several: bool) -> None:
    expected = losses_of_a_loop(use_amp, outer=False, several=several)
    assert len(set(expected)) == 4
    assert losses_of_a_loop(use_amp, outer=True, several=several) == expected
