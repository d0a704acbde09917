"""MMEngine: an `OptimWrapperDict` with `accumulative_counts` and `clip_grad`.

plain    `update_params` for each loss, as its GAN tutorial does, but over one graph
parts    both backwards, then step and clear each, as far as `should_update` says
own      the same, each backward told its own parameters (`inputs=`)
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import torch.distributed as dist
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.nn.parallel import DistributedDataParallel

from setting import ACCUM, BATCHES, CLIP, RANKS, Gan, due, fail, losses_of, my_batches, optimizers, own, tell

variant = sys.argv[1]
if RANKS > 1:
    dist.init_process_group("gloo")
gan = Gan()
mine = own(gan)
sides: dict[str, Any] = {
    side: OptimWrapper(optimizer, accumulative_counts=ACCUM, clip_grad={"max_norm": CLIP[side]})
    for side, optimizer in optimizers(gan).items()
}
optim = OptimWrapperDict(**sides)
networks = {
    side: DistributedDataParallel(module) if RANKS > 1 else module
    for side, module in (("d", gan.d), ("g", gan.g))
}
optim.initialize_count_status(gan, 0, BATCHES)  # its runner calls this; the dict does nothing
try:
    for batch, (real, noise) in enumerate(my_batches()):
        with ExitStack() as stack:
            for side, module in networks.items():
                stack.enter_context(optim[side].optim_context(module))
            losses = losses_of(networks["g"], networks["d"], real, noise)
            for side in due(batch):
                told = {"inputs": mine[side]} if variant == "own" else {}
                if variant == "plain":
                    optim[side].update_params(losses[side])
                else:
                    keep = side != due(batch)[-1]
                    optim[side].backward(optim[side].scale_loss(losses[side]), retain_graph=keep, **told)
        for side in due(batch) if variant != "plain" else ():
            if optim[side].should_update():
                optim[side].step()
                optim[side].zero_grad()
    tell(f"MMEngine, {variant}", gan)
except RuntimeError as error:
    fail(f"MMEngine, {variant}", error)
