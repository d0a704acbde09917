"""Accelerate: `accumulate(generator, discriminator)`, as in huggingface/accelerate#1708.

plain    both backwards, then clip and step each optimizer
own      the same, each backward told its own parameters (`inputs=`)
counted  the same, and each loss corrected by hand in the short last window
wrapper  one wrapper round both networks
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from accelerate import Accelerator

from setting import (
    ACCUM,
    CLIP,
    RANKS,
    ROWS,
    Gan,
    batches,
    due,
    fail,
    in_window,
    losses_of,
    optimizers,
    own,
    tell,
)

variant = sys.argv[1]
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUM)
gan = Gan()
mine, optimizer = own(gan), optimizers(gan)
rows = [torch.cat(part) for part in zip(*batches(), strict=True)]
loader: Any = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows), batch_size=ROWS // RANKS)
if variant == "wrapper":
    model, optimizer["d"], optimizer["g"], loader = accelerator.prepare(gan, *optimizer.values(), loader)
    wrapped = [model]
else:
    g, d, optimizer["d"], optimizer["g"], loader = accelerator.prepare(
        gan.g, gan.d, *optimizer.values(), loader
    )
    wrapped = [g, d]
try:
    for batch, (real, noise) in enumerate(loader):
        with accelerator.accumulate(*wrapped):
            losses = model(real, noise) if variant == "wrapper" else losses_of(g, d, real, noise)
            for side in due(batch):
                told = {} if variant in ("plain", "wrapper") else {"inputs": mine[side]}
                factor = ACCUM / in_window(batch) if variant == "counted" else 1.0
                accelerator.backward(factor * losses[side], retain_graph=side != due(batch)[-1], **told)
            for side in due(batch):
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(mine[side], CLIP[side])
                optimizer[side].step()
                optimizer[side].zero_grad()
    tell(f"Accelerate, {variant}", gan)
except RuntimeError as error:
    fail(f"Accelerate, {variant}", error)
