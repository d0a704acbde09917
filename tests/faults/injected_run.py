"""A short training with a bad gradient in it, watched at every step."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as Ddp

from optimscheduler import OptimScheduler, OptimSchedulerDict, StepReport
from optimscheduler.shards import local
from tests.faults.injections import BATCHES, FACTORS, OF_THE_LOSS, WARM_UP, Injection, Setting

__all__ = ["Outcome", "train"]

QUIET: Final = 12  # windows until the loss scale is doubled
GUARD: Final = {"z": 40.0, "window": 32, "warm_up": WARM_UP}
CONFS: Final[Mapping[str, Mapping[str, float]]] = {
    "AdamW": {"lr": 0.02},
    "SGD": {"lr": 0.1, "momentum": 0.9},
}
MODULES: Final = {
    "one": [None],
    "shared": ["trunk", ["left", "right"]],
    "two": [["trunk", "left"], "right"],
    "unequal": [["trunk", "left"], "right"],
    "shared unequal": ["trunk", ["left", "right"]],
}
NORMS: Final = {
    "2-norm": (1.0, 2.0),
    "largest": (0.5, "inf"),
    "2-norm, only measured": (None, 2.0),
    "largest, only measured": (None, "inf"),
}


@dataclass(kw_only=True)
class Outcome:
    """What became of one training on one rank.

    Attributes:
        before: loss on data that it is not trained with, at the start.
        after: the same at the end.
        learnt: for each closed window, a number that stands for weights, moments, scale and learning rate.
        failures: what should have been otherwise.
    """

    before: float = math.nan
    after: float = math.nan
    learnt: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Regression(nn.Module):
    """A trunk with two heads, each of which learns what a fixed network of the same shape says."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 12), nn.Tanh())
        self.left = nn.Linear(12, 2)
        self.right = nn.Linear(12, 2)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        left = nn.functional.mse_loss(self.left(z), y[:, :2])
        right = nn.functional.mse_loss(self.right(z), y[:, 2:])
        return {"loss": left + right, "left": left, "right": right}


class Data:
    """Batches by number and rank, what to learn from them being 0.3 away from what can be learnt."""

    def __init__(self, weighted: bool) -> None:
        self._sizes = (16, 7, 12) if weighted else (16,)
        self._teacher = Regression(seed=6)

    def batch(self, number: int, rank: int) -> tuple[Tensor, Tensor]:
        return self.some(self._sizes[(number + rank) % len(self._sizes)], seed=2 * number + rank)

    @torch.no_grad()
    def some(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 4, generator=generator)
        z = self._teacher.trunk(x)
        y = torch.cat([self._teacher.left(z), self._teacher.right(z)], dim=1)
        return x, y + 0.3 * torch.randn(count, 4, generator=generator)


class Watch:
    """Looks at the weights, moments and counters of every member before and after each step."""

    def __init__(
        self, setting: Setting, optims: OptimSchedulerDict, injection: Injection | None, lines: list[str]
    ) -> None:
        self._sharded = setting.wrap == "fsdp"
        self._optims, self._injection, self._lines = optims, injection, lines
        self._counts = {name: {"applied": 0, "skipped": 0, "skips_in_row": 0} for name in optims}
        self._before: dict[str, Tensor] = {}
        self._scales: dict[str, float] = {}
        self._wanted: dict[str, tuple[float, int]] = {}  # a loss scale, and after which update it is back
        self.learnt: list[int] = []
        self.failures: list[str] = []

    def look(self) -> None:
        """Before a step."""
        self._before = {name: learnt(optim) for name, optim in self._optims.items()}
        self._scales = scales(self._optims)

    def judge(self, number: int, reports: Mapping[str, StepReport]) -> None:
        """After it."""
        self._number = number
        for name, optim in self._optims.items():
            after = learnt(optim)
            self._expect(bool(after.isfinite().all()), f"{name}: a weight or a moment is not finite")
            moved = not same(after, self._before[name])
            report = reports.get(name)
            if report is None or not report.completes:
                self._expect(not moved, f"{name}: moved in the middle of a window")
            else:
                self._judge_closed(name, optim, report.read(), moved)
            self._judge_memory(name, optim)
        skips = sum(count["skipped"] for count in self._counts.values())
        self._expect(len(self._lines) == skips, f"{skips} skips in all, and in the log {self._lines}")
        if any(report.completes for report in reports.values()):
            self._note()

    def _judge_closed(self, name: str, optim: OptimScheduler, report: StepReport, moved: bool) -> None:
        refused = self._injection is not None and self._number in self._injection.hit.get(name, ())
        counts = self._counts[name]
        counts["skipped" if refused else "applied"] += 1
        counts["skips_in_row"] = counts["skips_in_row"] + 1 if refused else 0
        self._expect(report.skipped is refused, f"{name}: skipped is {report.skipped}")
        self._expect(report.updated is not refused, f"{name}: updated is {report.updated}")
        self._expect(moved is not refused, f"{name}: moved is {moved}")
        kept = [n for n, p in optim.owned.by_name.items() if p.grad is not None]
        self._expect(not kept, f"{name}: gradients are kept of {kept}")
        if refused:
            self._judge_line(self._lines[-1] if self._lines else "")
            says_nothing = self._injection is not None and self._injection.kind in OF_THE_LOSS
            self._judge_back_off(name, optim, says_nothing or math.isfinite(report.grad_norm or 0.0))

    def _judge_memory(self, name: str, optim: OptimScheduler) -> None:
        counts, told = self._counts[name], optim.member.ledger.read()
        self._expect(told == counts, f"{name}: the ledger says {told}, not {counts}")
        norms = optim.member.guard.state_dict().get("norms")
        if norms is not None:
            known = [norm for norm in norms if not math.isnan(norm)]
            expected = min(counts["applied"], len(norms))
            self._expect(all(map(math.isfinite, known)), f"{name}: the guard remembers {known}")
            self._expect(len(known) == expected, f"{name}: the guard remembers {len(known)}, not {expected}")

    def _judge_line(self, line: str) -> None:
        injection = self._injection
        assert injection is not None
        self._expect(f" of loss {injection.loss!r} skipped" in line or injection.kind == "nan data", line)
        if injection.setting.wrap != "alone":
            in_the_loss = injection.kind in OF_THE_LOSS
            where = ", ".join(map(str, injection.ranks))
            told = f"; on rank {where}; " if in_the_loss and dist.get_rank() in injection.ranks else ""
            told = told or (f"on rank {where}; " if in_the_loss else "rank unknown, already averaged; ")
            self._expect(told in line, f"not blamed {told!r}: {line}")

    def _judge_back_off(self, name: str, optim: OptimScheduler, says_nothing: bool) -> None:
        """Neither a spike nor a loss that is not finite is an overflow, and takes the scale down."""
        if optim.scaler is None:
            return
        before, after = self._scales[name], optim.scaler.get_scale()
        if says_nothing:
            kept = after in (before, 2 * before)
            self._expect(kept, f"{name}: what is no overflow took the scale {before} to {after}")
            return
        loss = optim.member.loss
        is_open = any(o.member.window for o in self._optims.values() if o.member.loss == loss)
        expected = before if is_open else before / 2
        self._expect(after == expected, f"{name}: an overflow took the scale {before} to {after}")
        self._wanted[name] = (before, self._counts[name]["applied"] + 2 * QUIET)

    def judge_end(self) -> None:
        """When all is over: where there was time enough, the loss scales are what they were."""
        now = scales(self._optims)
        for name, (wanted, when) in self._wanted.items():
            if self._counts[name]["applied"] >= when:
                self._expect(now[name] >= wanted, f"{name}: the scale is {now[name]}, it was {wanted}")

    def _note(self) -> None:
        numbers = torch.tensor([*self._optims.get_lr().values(), *scales(self._optims).values()])
        counts = torch.tensor([float(count) for own in self._counts.values() for count in own.values()])
        whole = [] if self._sharded else [learnt(optim) for optim in self._optims.values()]
        self.learnt.append(zlib.crc32(torch.cat([*whole, numbers, counts]).numpy().tobytes()))

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.failures.append(f"batch {self._number}: {otherwise}")


def train(setting: Setting, injection: Injection | None) -> Outcome:
    """One rank's part of it."""
    rank = 0 if setting.wrap == "alone" else dist.get_rank()
    data, bare = Data(setting.weighted), Regression()
    model = wrapped(bare, setting)
    held_out = data.some(512, seed=0)
    with heard() as lines:
        optims = built(setting, model)
        watch = Watch(setting, optims, injection, lines)
        before = measured(bare, held_out)
        last = BATCHES[setting.accum_grad]
        for number in range(1, last + 1):
            is_bad = injection is not None and number == injection.batch and rank in injection.ranks
            bad, is_last = injection if is_bad else None, number == last and setting.end == "announced"
            watch.look()
            reports = stepped(model, optims, data.batch(number, rank), setting, bad, is_last)
            watch.judge(number, reports)
        watch.look()
        watch.judge(last, optims.flush())
        watch.judge_end()
    after = measured(bare, held_out)
    return Outcome(before=before, after=after, learnt=watch.learnt, failures=watch.failures)


def wrapped(model: Regression, setting: Setting) -> nn.Module:
    if setting.wrap.startswith("ddp"):
        return Ddp(model, gradient_as_bucket_view=setting.wrap == "ddp views")
    if setting.wrap == "fsdp":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        fully_shard(model.trunk, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def stepped(
    model: nn.Module,
    optims: OptimSchedulerDict,
    batch: tuple[Tensor, Tensor],
    setting: Setting,
    bad: Injection | None,
    last: bool,
) -> dict[str, StepReport]:
    x, y = batch
    if bad and bad.kind == "nan data":
        x[0, 0] = math.nan
    with optims.forward(last=last):
        losses = model(x, y)
    if bad and bad.kind in FACTORS:
        losses[bad.loss] = losses[bad.loss] * FACTORS[bad.kind]
    with poisoned(optims[bad.name], bad) if bad and bad.kind.endswith("element") else nullcontext():
        return optims.step(losses, weight=len(x) if setting.weighted else None)


@contextmanager
def poisoned(optim: OptimScheduler, bad: Injection) -> Iterator[None]:
    """A backward inside gives one element of one parameter's gradient a bad value."""

    def hook(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[-1] = math.nan if bad.kind.startswith("nan") else math.inf
        return gradient

    *_, parameter = optim.owned.by_name.values()
    handle = parameter.register_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def built(setting: Setting, model: nn.Module) -> OptimSchedulerDict:
    optim_type, *fused = setting.optimizer.split()
    members = zip(setting.cadences().items(), MODULES[setting.members], strict=True)
    optims = OptimSchedulerDict(
        {
            name: OptimScheduler(
                optim_type,
                {**CONFS[optim_type], "fused": bool(fused)},
                model,
                distributed=setting.wrap == "hand",
                optim_loss=setting.losses()[name],
                updated_modules=modules,
                accum_grad=size,
                step_per_update=interval,
                use_amp=setting.precision,
                grad_clip=NORMS[setting.clip][0],
                grad_norm_type=NORMS[setting.clip][1],
                guard=GUARD if setting.guarded else None,
                layout=setting.layout,
            )
            for (name, (size, interval)), modules in members
        }
    )
    for optim in optims.values():
        if optim.scaler is not None:  # small enough that no clean gradient overflows, and quick to grow
            optim.scaler.value.fill_(256.0)
            optim.scaler.growth_interval = QUIET
    return optims


def learnt(optim: OptimScheduler) -> Tensor:
    """Weights and moments in one row."""
    state = optim.optimizer.state_dict()["state"]
    moments = [v for of_one in state.values() for v in of_one.values() if isinstance(v, Tensor)]
    return torch.cat(
        [local(t.detach()).reshape(-1).float() for t in (*optim.owned.by_name.values(), *moments)]
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit."""
    return one.shape == other.shape and torch.equal(one.view(torch.int32), other.view(torch.int32))


def scales(optims: OptimSchedulerDict) -> dict[str, float]:
    return {n: o.scaler.get_scale() for n, o in optims.items() if o.scaler is not None}


@torch.no_grad()
def measured(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    return float(model(*batch)["loss"])


@contextmanager
def heard() -> Iterator[list[str]]:
    """What the library says, which goes nowhere else."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, ear = logging.getLogger("optimscheduler"), Ear(logging.WARNING)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(ear)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
        logger.propagate = propagate
