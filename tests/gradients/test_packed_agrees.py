"""R25: flat and fused against loose and plain: the same weights but for the order of additions.

Distances are vector norms: of the difference of all weights, over that of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler, OptimSchedulerDict, StepReport
from optimscheduler.gradients.packable import SCALARS
from optimscheduler.update.apply import Fused, Plain, kernel_for
from tests.cases_flat import buffers_of, is_flat
from tests.cases_models import Batch, batches, mse, optim_of

F32, F64 = torch.float32, torch.float64
CLOSE = {F32: 1e-6, F64: 1e-13}

CONFS: dict[str, dict[str, Any]] = {
    "Adadelta": {"lr": 0.1, "weight_decay": 1e-2},
    "Adagrad": {"lr": 0.02, "weight_decay": 1e-2},
    "Adam": {"lr": 1e-3, "weight_decay": 1e-2},
    "AdamW": {"lr": 1e-3, "weight_decay": 1e-1},
    "Adamax": {"lr": 1e-3, "weight_decay": 1e-2},
    "ASGD": {"lr": 0.02, "t0": 50},
    "NAdam": {"lr": 1e-3, "weight_decay": 1e-2},
    "RAdam": {"lr": 1e-3, "weight_decay": 1e-2},
    "RMSprop": {"lr": 1e-3, "momentum": 0.9, "centered": True},
    "Rprop": {"lr": 1e-3, "step_sizes": (1e-5, 2e-3)},
    "SGD": {"lr": 2e-3, "momentum": 0.9, "weight_decay": 1e-2},
}
FUSED = ("Adagrad", "Adam", "AdamW", "SGD")


def a_net(dtype: torch.dtype) -> nn.Sequential:
    """Wide gradients everywhere: nothing is near zero, where signs would hang on the last bit."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 5), nn.Softplus(), nn.Linear(5, 2)).to(
        dtype
    )


def twins(
    optim_type: str, make: Callable[[], nn.Module], conf: dict[str, Any] | None = None, **arguments: Any
) -> tuple[OptimScheduler, OptimScheduler]:
    """Flat with the kernel that is chosen by itself; loose and plain."""
    conf = CONFS[optim_type] if conf is None else conf
    plain = {**conf, "fused": False} if optim_type in FUSED else conf
    flat = optim_of(make(), optim_type, layout="flat", conf=conf, **arguments)
    loose = optim_of(make(), optim_type, layout="loose", conf=plain, **arguments)
    assert isinstance(kernel_for(loose.member.gradients.stepped), Plain)
    lower = next(flat.model.parameters()).dtype.itemsize < 4
    assert lower or isinstance(kernel_for(flat.member.gradients.stepped), Fused) is (optim_type in FUSED)
    return flat, loose


def distance(one: nn.Module, other: nn.Module) -> float:
    mine, theirs = (nn.utils.parameters_to_vector(m.parameters()).detach().double() for m in (one, other))
    return float((mine - theirs).norm() / theirs.norm())


def one(optim: OptimScheduler, batch: Batch, **arguments: Any) -> StepReport:
    with optim.forward():
        loss = mse(optim.model, batch)
    return optim.step({"loss": loss}, **arguments)


def race(
    flat: OptimScheduler, loose: OptimScheduler, data: list[Batch], weights: list[Any] | None = None
) -> float:
    """Train both, compare their reports; the distance of their weights."""
    start = copy.deepcopy(flat.model)
    for i, batch in enumerate(data):
        extra = {} if weights is None else {"weight": weights[i]}
        mine, theirs = (one(optim, batch, **extra).read() for optim in (flat, loose))
        assert (mine.updated, mine.skipped, mine.lr) == (theirs.updated, theirs.skipped, theirs.lr)
        if theirs.grad_norm is not None:
            assert mine.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-2, abs=1e-4, nan_ok=True)
        assert is_flat(flat) or not flat.member.updates
    assert flat.member.updates == loose.member.updates
    assert len(flat.member.gradients.moved_elsewhere) == len(list(flat.model.parameters()))
    assert distance(flat.model, start) > 1e-2, "it was trained"
    return distance(flat.model, loose.model)


def data_for(dtype: torch.dtype, count: int) -> list[Batch]:
    """Targets far away, so that the gradient keeps its sign."""
    return [(x, y * 0.3 + 6) for x, y in batches(count, dtype=dtype)]


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("optim_type", CONFS)
def test_R25_over_200_updates(optim_type: str, dtype: torch.dtype) -> None:
    flat, loose = twins(optim_type, lambda: a_net(dtype), grad_clip=1.0)
    assert race(flat, loose, data_for(dtype, 200)) <= CLOSE[dtype]
    assert len(buffers_of(flat)) == 1


def test_R25_every_element_wise_optimizer_is_tried() -> None:
    assert set(CONFS) == {c.__name__ for c in SCALARS}


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "Adagrad", "RMSprop"])
def test_R16_R25_groups_of_their_own_learning_rate_and_decay(optim_type: str, dtype: torch.dtype) -> None:
    lr = CONFS[optim_type]["lr"]
    rules = [{"ndim": "<2", "weight_decay": 0.0}, {"name": "0", "lr": lr / 3}]
    flat, loose = twins(optim_type, lambda: a_net(dtype), param_groups=rules, accum_grad=2)
    for optim in (flat, loose):
        optim.model[0].bias.requires_grad_(False)
        optim.model[0].bias.requires_grad_(True)
    data = data_for(dtype, 200)
    for batch in data:
        for optim in (flat, loose):
            one(optim, batch)
    # three biases, two weights; the third group's only tensor has nobody to lie beside
    assert [len(buffer.parameters) for buffer in buffers_of(flat)] == [2, 3]
    assert distance(flat.model, loose.model) <= CLOSE[dtype]
    assert distance(flat.model, a_net(dtype)) > 1e-2


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, "inf"])
@pytest.mark.parametrize("optim_type", ["Adam", "SGD", "NAdam"])
def test_R19_R25_accumulation_and_clipping(optim_type: str, norm_type: float | str) -> None:
    flat, loose = twins(optim_type, lambda: a_net(F64), accum_grad=3, grad_clip=0.3, grad_norm_type=norm_type)
    assert race(flat, loose, data_for(F64, 90)) <= CLOSE[F64]


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["numbers", "tensors"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD"])
def test_R06_R25_weighted_windows(optim_type: str, dtype: torch.dtype, kind: Callable[[float], Any]) -> None:
    counts = [kind(float(n)) for n in [5, 1, 0, 0, 0, 0, 7, 3, 2] * 10]  # the second window is of nothing
    flat, loose = twins(optim_type, lambda: a_net(dtype), {"lr": 0.01}, accum_grad=3, grad_clip=1.0)
    assert race(flat, loose, data_for(dtype, 90), counts) <= CLOSE[dtype]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "RMSprop"])
def test_R25_R26_in_half_precision(optim_type: str, precision: str) -> None:
    """A weight that differs in its last bit may be cast to another half: an eighth of a per cent."""
    flat, loose = twins(optim_type, lambda: a_net(F32), accum_grad=2, grad_clip=1.0, use_amp=precision)
    assert race(flat, loose, data_for(F32, 100)) <= 1e-4
    if precision == "fp16":
        assert flat.scaler is not None
        assert loose.scaler is not None
        assert flat.scaler.state_dict() == loose.scaler.state_dict()


@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "RMSprop"])
def test_R20_R26_a_loss_scale_too_large_is_found_by_both(optim_type: str) -> None:
    flat, loose = twins(optim_type, lambda: a_net(F32), grad_clip=1.0, use_amp="fp16")
    for optim in (flat, loose):
        assert optim.scaler is not None
        optim.scaler.value.fill_(2.0**20)
    skips = []
    for batch in data_for(F32, 40):
        mine, theirs = (one(optim, batch).read() for optim in (flat, loose))
        assert mine.skipped == theirs.skipped
        skips.append(mine.skipped)
    assert any(skips)
    assert not all(skips)
    assert is_flat(flat)
    assert distance(flat.model, loose.model) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optim_type", FUSED)
def test_R25_weights_in_half_precision(optim_type: str, dtype: torch.dtype) -> None:
    eps = {} if optim_type == "SGD" else {"eps": 1e-3}  # torch's own is nothing in float16
    flat, loose = twins(optim_type, lambda: a_net(dtype), {"lr": 0.02, **eps})
    for batch in data_for(dtype, 20):
        for optim in (flat, loose):
            one(optim, batch)
        assert is_flat(flat)
    assert distance(flat.model, a_net(dtype)) > 5e-2, "it was trained"
    assert distance(flat.model, loose.model) <= 5e-2


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optim_type", FUSED)
def test_every_weight_in_half_precision_moves(optim_type: str, dtype: torch.dtype, layout: str) -> None:
    """Not so in torch's fused SGD: on a CPU, 2.12 and 2.13 pass over whole vectors (its issue 191763)."""
    model = nn.ParameterList([nn.Parameter(torch.ones(n, dtype=dtype)) for n in (5, 16, 64, 100)])
    optim = optim_of(model, optim_type, layout=layout)
    for _ in range(2):
        loss = torch.stack([p.square().sum() for p in model]).sum()
        assert optim.step({"loss": loss}).read().updated
    assert bool(optim.member.gradients.moved_elsewhere) is (layout == "flat")
    for p in model:
        assert (p < 1).all(), f"{int((p == 1).sum())} of {len(p)} have not moved"


@pytest.mark.parametrize(
    "options", [{"amsgrad": True}, {"maximize": True}, {"betas": (0.5, 0.9), "eps": 1e-3}]
)
def test_R25_options_of_the_optimizer(options: dict[str, Any]) -> None:
    flat, loose = twins("Adam", lambda: a_net(F64), {"lr": 1e-3, **options})
    assert race(flat, loose, data_for(F64, 60)) <= CLOSE[F64]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("optim_type", FUSED)
def test_R25_flat_with_either_kernel(optim_type: str, fused: bool) -> None:
    conf = {**CONFS[optim_type], "fused": fused}
    flat = optim_of(a_net(F64), optim_type, layout="flat", conf=conf, grad_clip=0.5, accum_grad=2)
    loose = optim_of(a_net(F64), optim_type, layout="loose", conf=conf, grad_clip=0.5, accum_grad=2)
    assert race(flat, loose, data_for(F64, 80)) <= CLOSE[F64]


@pytest.mark.parametrize("foreach", [True, False])
def test_R25_flat_with_foreach_or_without(foreach: bool) -> None:
    conf = {**CONFS["Adam"], "fused": False, "foreach": foreach}
    flat, loose = (
        optim_of(a_net(F64), "Adam", layout=layout, conf=conf, grad_clip=0.5) for layout in ("flat", "loose")
    )
    assert race(flat, loose, data_for(F64, 40)) <= CLOSE[F64]


def test_R23_a_guard_refuses_the_same() -> None:
    guard = {"z": 4.0, "window": 10, "warm_up": 5}
    flat, loose = twins("SGD", lambda: a_net(F64), {"lr": 0.01}, guard=guard, max_skips=50)
    data = data_for(F64, 40)
    data[20] = (data[20][0], data[20][1] * 1e4)
    assert race(flat, loose, data) <= CLOSE[F64]
    assert flat.member.ledger.read()["skipped"] >= 1


# ---- several members ----


class Two(nn.Module):
    """A trunk and two heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.left, self.right = nn.Linear(6, 2), nn.Linear(6, 2)
        self.double()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z = self.trunk(batch[0])
        left, right = self.left(z), self.right(z)
        return {
            "loss": (left + right - batch[1]).square().mean(),
            "left": (left - batch[1]).square().mean(),
            "right": (right * left - 1).square().mean(),
        }


MEMBERS: dict[str, dict[str, dict[str, Any]]] = {
    "a loss each": {
        "trunk": {"updated_modules": "trunk", "accum_grad": 2, "grad_clip": 0.3},
        "left": {"updated_modules": "left", "optim_loss": "left", "accum_grad": 3, "step_per_update": 2},
        "right": {
            "updated_modules": "right",
            "optim_loss": "right",
            "grad_norm_type": "inf",
            "grad_clip": 0.1,
        },
    },
    "one loss": {
        "trunk": {"updated_modules": "trunk", "accum_grad": 2},
        "heads": {"updated_modules": ["left", "right"], "accum_grad": 3, "grad_clip": 0.2},
    },
}


@pytest.mark.parametrize("only", [False, True], ids=["all", "in turn"])
@pytest.mark.parametrize("precision", [False, "fp16"])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "RMSprop"])
@pytest.mark.parametrize("members", MEMBERS)
def test_R09_R25_several_members(members: str, optim_type: str, precision: Any, only: bool) -> None:
    dicts = []
    for layout in ("flat", "loose"):
        model = Two().float() if precision else Two()
        dicts.append(
            OptimSchedulerDict(
                {
                    name: optim_of(
                        model, optim_type, layout=layout, conf={"lr": 0.01}, use_amp=precision, **arguments
                    )
                    for name, arguments in MEMBERS[members].items()
                }
            )
        )
    names = list(MEMBERS[members])
    for number, batch in enumerate(batches(60, dtype=F32 if precision else F64)):
        reports = []
        for optims in dicts:
            with optims.forward():
                losses = optims[names[0]].model(batch)
            # alternating as in a GAN: two batches for one, one for the next
            turn = [names[number // 2 % len(names)]] if only else None
            reports.append(optims.step(losses, only=turn))
        done = [{name: (r.completes, r.batches) for name, r in each.items()} for each in reports]
        assert done[0] == done[1]
    assert all(is_flat(optim) for optim in dicts[0].values())
    one_, other = (optims[names[0]].model for optims in dicts)
    assert distance(one_, other) <= (1e-3 if precision else 1e-13)
    assert distance(one_, Two()) > 1e-2
