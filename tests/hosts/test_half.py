"""R44: Accelerate casts to float16 by itself, and has a loss scale only for its own `backward`."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tests.cases_models import optim_of

accelerate = pytest.importorskip("accelerate", reason="pip install accelerate")

pytestmark = pytest.mark.xdist_group("hosts: accelerate")


@pytest.mark.parametrize(
    ("precision", "use_amp", "lines"), [("fp16", False, 1), ("fp16", "fp16", 0), ("bf16", False, 0)]
)
def test_R44_accelerates_float16_is_said(
    caplog: pytest.LogCaptureFixture, precision: str, use_amp: object, lines: int
) -> None:
    caplog.set_level(logging.WARNING, "optimscheduler")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    accelerator.native_amp = True  # as it is on an accelerator; on a CPU it casts to bfloat16 alone
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    optim = optim_of(model, use_amp=use_amp)
    wrapped = accelerator.prepare_model(model)
    for _ in range(3):
        with optim.forward():
            loss = wrapped(torch.ones(2, 3)).square().mean()
        optim.step(loss)
    said = [record.getMessage() for record in caplog.records if "float16" in record.getMessage()]
    assert len(said) == lines
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
