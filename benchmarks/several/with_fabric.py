"""Lightning Fabric: `setup` for each network and its optimizer, `no_backward_sync` in mid-window.

plain    both backwards, then clip and step each optimizer
own      the same, each backward told its own parameters (`inputs=`)
wrapper  one wrapper round both networks

Fabric leaves the division by the batches of a window to the user, who is taken to count them rightly.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from lightning_fabric import Fabric

from setting import CLIP, RANKS, Gan, due, ends, fail, in_window, losses_of, my_batches, optimizers, own, tell

variant = sys.argv[1]
strategy = "ddp" if RANKS > 1 else "auto"
fabric = Fabric(accelerator="cpu", devices=RANKS, strategy=strategy, precision="64-true")
fabric.launch()
gan = Gan()
plain, mine, optimizer = {"d": gan.d, "g": gan.g}, own(gan), optimizers(gan)
if variant == "wrapper":
    model, optimizer["d"], optimizer["g"] = fabric.setup(gan, *optimizer.values())
    wrapped = [model]
else:
    d, optimizer["d"] = fabric.setup(gan.d, optimizer["d"])
    g, optimizer["g"] = fabric.setup(gan.g, optimizer["g"])
    wrapped = [g, d]
try:
    for batch, (real, noise) in enumerate(my_batches()):
        with ExitStack() as stack:
            for module in wrapped:
                stack.enter_context(fabric.no_backward_sync(module, enabled=not ends(batch)))
            losses = model(real, noise) if variant == "wrapper" else losses_of(g, d, real, noise)
            for side in due(batch):
                told = {"inputs": mine[side]} if variant == "own" else {}
                fabric.backward(losses[side] / in_window(batch), retain_graph=side != due(batch)[-1], **told)
        for side in due(batch) if ends(batch) else ():
            fabric.clip_gradients(plain[side], optimizer[side], max_norm=CLIP[side])
            optimizer[side].step()
            optimizer[side].zero_grad()
    tell(f"Fabric, {variant}", gan)
except RuntimeError as error:
    fail(f"Fabric, {variant}", error)
