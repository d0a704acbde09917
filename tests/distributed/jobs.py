"""What the ranks of the tests do: train, and compare with one process that has all the data."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as Ddp
from torch.utils._python_dispatch import TorchDispatchMode

from optimscheduler import OptimScheduler, OptimSchedulerDict, StepReport
from optimscheduler.parameters.owned import canonical

WRAPS = ("ddp", "hand", "fsdp")


class Heads(nn.Module):
    """A trunk with two heads; the losses overlap. `side` is used where a batch says so."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.left = nn.Linear(4, 2)
        self.right = nn.Linear(4, 2)
        self.side = nn.Linear(4, 2)
        self.double()

    def forward(self, x: Tensor, side: bool = True) -> dict[str, Tensor]:
        z = self.trunk(x)
        left, right = self.left(z), self.right(z)
        right = right + self.side(z) if side else right
        return {
            "loss": (left * right).square().mean() + left.mean(),
            "left": left.square().mean(),
            "right": (right + left).square().mean(),
        }


@dataclass(frozen=True)
class Setting:
    """How a job trains.

    Attributes:
        wrap: `"ddp"`, `"hand"` (not wrapped), `"fsdp"`, or `"parts"` (a wrapper round each part).
        members: name -> arguments of the OptimScheduler.
        batches: how many.
        last: whether the last one is announced (`forward(last=True)`) or flushed afterwards.
        sizes: items of a batch on each rank, in turn; unequal ones come with a weight.
        one_sided: only rank 0 uses the module `side`.
        poison: (batch, rank, loss) whose loss is multiplied by NaN.
        inside: the model is called inside `forward()`.
        clip_together: as `OptimSchedulerDict` takes it.
    """

    wrap: str
    members: Mapping[str, Mapping[str, Any]]
    batches: int = 7
    last: bool = True
    sizes: Sequence[int] = (4,)
    one_sided: bool = False
    poison: tuple[int, int, str] | None = None
    inside: bool = True
    clip_together: bool = False
    ddp: Mapping[str, Any] = field(default_factory=dict)


ONE = {"main": {"accum_grad": 2, "grad_clip": 0.5}}
SEVERAL = {
    "trunk": {"updated_modules": "trunk", "optim_loss": "loss", "accum_grad": 2, "grad_clip": 0.3},
    "left": {"updated_modules": "left", "optim_loss": "left", "accum_grad": 3, "step_per_update": 2},
    "right": {"updated_modules": ["right", "side"], "optim_loss": "right", "grad_norm_type": "inf"},
}


def build(
    model: nn.Module, members: Mapping[str, Mapping[str, Any]], clip_together: bool = False, **more: Any
) -> OptimSchedulerDict:
    defaults = {"optim_type": "Adam", "optim_conf": {"lr": 0.05}, "use_amp": False, **more}
    return OptimSchedulerDict(
        {name: OptimScheduler(model=model, **{**defaults, **conf}) for name, conf in members.items()},
        clip_together=clip_together,
    )


def wrapped(model: Heads, setting: Setting) -> nn.Module:
    if setting.wrap == "ddp":
        return Ddp(model, **setting.ddp)
    if setting.wrap == "fsdp":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for part in (model.trunk, model.left):
            fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)
    if setting.wrap == "fsdp part":
        fully_shard(model.trunk, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    if setting.wrap == "parts":
        model.trunk, model.left = Ddp(model.trunk), Ddp(model.left)  # type: ignore[assignment]
    return model


def data(setting: Setting, ranks: int) -> list[list[Tensor]]:
    """Batch by batch, what each rank gets."""
    generator = torch.Generator().manual_seed(7)
    sizes = [
        [setting.sizes[(b + r) % len(setting.sizes)] for r in range(ranks)] for b in range(setting.batches)
    ]
    return [
        [torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in batch] for batch in sizes
    ]


def train(
    model: nn.Module, optims: OptimSchedulerDict, batches: Sequence[Tensor], setting: Setting, side: bool
) -> list[dict[str, StepReport]]:
    """One rank's part of the run, or the whole of it."""
    weighted, reports = len(setting.sizes) > 1, []
    for number, x in enumerate(batches, start=1):
        last = setting.last and number == len(batches)
        if setting.inside:
            with optims.forward(last=last):
                losses = model(x, side=side)
        else:
            losses = model(x, side=side)
        if setting.poison and setting.poison[:2] == (number, dist.get_rank()):
            losses[setting.poison[2]] = losses[setting.poison[2]] * torch.nan
        reports.append(optims.step(losses, weight=len(x) if weighted else None))
    if not setting.last:
        reports.append(optims.flush())
    return reports


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Canonical name -> the whole parameter."""
    return {
        canonical(name): (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in model.named_parameters()
    }


def distance(setting: Setting) -> float:
    """The largest difference between this rank's weights and those of one process with all the data."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    batches = data(setting, ranks)
    model = Heads()
    if rank:  # rank 0's count; fully_shard alone takes the shards as they are
        for part in (model.left, model.right) if "fsdp" not in setting.wrap else ():
            part.bias.data += 1.0
        if setting.wrap == "fsdp part":
            model.right.bias.data += 1.0
    model_ = wrapped(model, setting)
    optims = build(model_, setting.members, setting.clip_together, distributed=setting.wrap == "hand")
    train(model_, optims, [batch[rank] for batch in batches], setting, not (setting.one_sided and rank))
    alone = Heads()
    together = Setting(**{**setting.__dict__, "poison": None, "inside": True})
    _train_alone(alone, build(alone, setting.members, setting.clip_together), batches, together)
    start, expected = weights(Heads()), weights(alone)
    assert any((expected[name] - start[name]).abs().max() > 1e-2 for name in start), "nothing was trained"
    return max(float((w - expected[name]).abs().max()) for name, w in weights(model_).items())


def _train_alone(
    model: Heads, optims: OptimSchedulerDict, batches: Sequence[Sequence[Tensor]], setting: Setting
) -> None:
    """One process; the loss of a batch is the mean over the ranks' parts, weighted by their items."""
    weighted = len(setting.sizes) > 1
    for number, parts in enumerate(batches, start=1):
        with optims.forward(last=setting.last and number == len(batches)):
            outputs = [model(x, side=not (setting.one_sided and r)) for r, x in enumerate(parts)]
            shares = [len(x) / sum(map(len, parts)) if weighted else 1 / len(parts) for x in parts]
            losses = {
                name: sum(
                    share * output[name] for share, output in zip(shares, outputs, strict=True) if share
                )
                for name in outputs[0]
            }
        optims.step(losses, weight=sum(map(len, parts)) if weighted else None)
    if not setting.last:
        optims.flush()


class Collectives(TorchDispatchMode):
    """Counts what goes over the wire, by kind; torch's own C++ reducer is seen too."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.counts[func._opname.strip("_")] += 1
        return func(*args, **(kwargs or {}))


def traffic(setting: Setting) -> dict[str, int]:
    """Collectives of the whole run, by kind."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = wrapped(Heads(), setting)
    optims = build(model, setting.members, distributed=setting.wrap == "hand")
    with Collectives() as collectives:
        train(model, optims, [batch[rank] for batch in data(setting, ranks)], setting, side=True)
    return dict(collectives.counts)
