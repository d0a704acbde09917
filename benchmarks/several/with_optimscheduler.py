"""optimscheduler: one wrapper, one forward, one step."""

from __future__ import annotations

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from optimscheduler import OptimScheduler, OptimSchedulerDict
from setting import ACCUM, BATCHES, CLIP, EPS, LR, RANKS, Gan, my_batches, tell

if RANKS > 1:
    dist.init_process_group("gloo")
gan = Gan()
model = DistributedDataParallel(gan) if RANKS > 1 else gan
conf = {
    "optim_type": "Adam",
    "optim_conf": {"lr": LR, "eps": EPS},
    "model": model,
    "accum_grad": ACCUM,
    "use_amp": False,
}
optims = OptimSchedulerDict(
    {
        "d": OptimScheduler(optim_loss="d", updated_modules="d", grad_clip=CLIP["d"], **conf),
        "g": OptimScheduler(
            optim_loss="g", updated_modules="g", grad_clip=CLIP["g"], step_per_update=2, **conf
        ),
    }
)
for batch, (real, noise) in enumerate(my_batches(), start=1):
    with optims.forward(last=batch == BATCHES):
        losses = model(real, noise)
    optims.step(losses)
tell("optimscheduler", gan)
