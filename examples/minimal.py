"""A whole training run with a loop of your own: python examples/minimal.py."""

import torch
from torch import nn

from optimscheduler import OptimScheduler

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 1))
inputs = torch.randn(4096, 8)
targets = (inputs[:, :1] * inputs[:, 1:2]).sin()
optim = OptimScheduler(
    optim_type="AdamW",
    optim_conf={"lr": 3e-3, "weight_decay": 0.1},
    model=model,
    accum_grad=2,
    param_groups=[{"ndim": "<2", "weight_decay": 0}],
    schedule="Warmup(steps=20, then=Cosine(steps=300, floor=0.01))",
)
for _epoch in range(10):
    for rows in torch.split(torch.randperm(4096), 64):
        with optim.forward():
            losses = {"loss": nn.functional.mse_loss(model(inputs[rows]), targets[rows])}
        report = optim.step(losses)
    print(report)
