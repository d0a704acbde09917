"""Clipping by value and adaptive clipping (AGC), alone and before the norm, against a plain loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import ConfigError, OptimScheduler, build_optim_sches
from optimscheduler.gradients.per_tensor import PerTensor
from optimscheduler.update.clip import Clip, clip_for
from optimscheduler.update.limits import Adaptive, ByValue

torch.set_num_threads(1)

CLIPS: list[dict[str, float]] = [
    {"value": 0.01},
    {"value": 0.01, "norm": 0.05},
    {"agc": 0.02},
    {"agc": 0.05, "eps": 0.5},
    {"agc": 0.05, "norm": 0.02},
]


def unit_norms(x: Tensor) -> Tensor:
    return x.norm() if x.ndim < 2 else x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def agc_by_hand(parameters: Iterable[nn.Parameter], agc: float, eps: float) -> None:
    """Equation 3 of Brock et al. 2021."""
    for p in parameters:
        assert p.grad is not None
        most = agc * unit_norms(p.detach()).clamp(min=eps)
        norms = unit_norms(p.grad)
        p.grad = torch.where(norms > most, p.grad * (most / norms), p.grad)


def clip_by_hand(parameters: list[nn.Parameter], clip: dict[str, float]) -> None:
    if "value" in clip:
        nn.utils.clip_grad_value_(parameters, clip["value"])
    if "agc" in clip:
        agc_by_hand(parameters, clip["agc"], clip.get("eps", 1e-3))
    if "norm" in clip:
        nn.utils.clip_grad_norm_(parameters, clip["norm"])


class Net(nn.Module):
    """Tensors with 1, 2 and 4 dimensions; one is larger than what may lie in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(2, 3, 3)
        self.wide = nn.Linear(12, 3000)
        self.narrow = nn.Linear(3000, 4)
        self.zero = nn.Parameter(torch.zeros(4))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).tanh().flatten(1)
        return (self.narrow(self.wide(h).tanh()) + self.zero).square().mean()


def data(count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(6)
    return [torch.randn(5, 2, 4, 4, generator=g, dtype=torch.float64) for _ in range(count)]


def largest_difference(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize(("optim_type", "lr"), [("AdamW", 1e-2), ("SGD", 3.0), ("Rprop", 1e-2)])
@pytest.mark.parametrize("weights", [None, [3.0, 1.0, 2.0]])
@pytest.mark.parametrize("clip", CLIPS)
def test_R19_clipping_part_by_part_is_that_of_a_plain_loop(
    clip: dict[str, float], weights: list[float] | None, optim_type: str, lr: float
) -> None:
    """Windows of two batches, the last one short; sums in another order, in float64."""
    model, twin = Net(), Net()
    optim = OptimScheduler(optim_type, {"lr": lr}, model, accum_grad=2, use_amp=False, grad_clip=clip)
    optimizer = getattr(torch.optim, optim_type)(twin.parameters(), lr=lr)
    batches = data(9)
    norms, expected = [], []
    for n, x in enumerate(batches, start=1):
        weight = None if weights is None else weights[n % 3]
        report = optim.step(model(x), weight=weight, last=n == len(batches))
        ((weight or 1.0) * twin(x)).backward()
        if n % 2 and n < len(batches):
            continue
        window = [n] if n % 2 else [n - 1, n]
        total = sum(1.0 if weights is None else weights[i % 3] for i in window)
        parameters = list(twin.parameters())
        for p in parameters:
            p.grad /= total
        norms.append(report.read().grad_norm)
        expected.append(float(nn.utils.get_total_norm([p.grad for p in parameters])))
        clip_by_hand(parameters, clip)
        optimizer.step()
        optimizer.zero_grad()
    assert largest_difference(model, Net()) > 1e-3, "it has trained"
    assert largest_difference(model, twin) < 1e-12
    assert norms == pytest.approx(expected), "what is reported is the norm before any clipping"


@pytest.mark.parametrize("clip", CLIPS)
def test_R41_a_hook_before_the_step_sees_what_is_applied(clip: dict[str, float]) -> None:
    model, twin = Net(), Net()
    optim = OptimScheduler("AdamW", {"lr": 1e-2}, model, use_amp=False, grad_clip=clip)
    seen: list[Tensor] = []
    optim.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)
    )
    (x,) = data(1)
    optim.step(model(x))
    twin(x).backward()
    clip_by_hand(list(twin.parameters()), clip)
    for gradient, p in zip(seen, twin.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("use_amp", ["fp16", "bf16"])
def test_clipping_part_by_part_is_of_the_unscaled_gradient(clip: dict[str, float], use_amp: Any) -> None:
    """A loss scale of 2^10, and a weight, are divided out first: exactly, as they are powers of two."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    twin = copy.deepcopy(model)
    optim = OptimScheduler("SGD", {"lr": 0.1}, model, use_amp=use_amp, grad_clip=clip)
    scale = 1.0
    if optim.scaler is not None:
        scale = 2.0**10
        optim.scaler.value.fill_(scale)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(4):
        x = torch.randn(6, 4)
        with optim.forward():
            loss = model(x).float().square().mean()
        optim.step(loss, weight=4.0)
        with torch.autocast("cpu", torch.float16 if use_amp == "fp16" else torch.bfloat16):
            loss = twin(x).float().square().mean()
        (loss * scale).backward()
        for p in twin.parameters():
            p.grad /= scale
        clip_by_hand(list(twin.parameters()), clip)
        optimizer.step()
        optimizer.zero_grad()
    assert largest_difference(model, twin) < 1e-6  # float32


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_R20_what_is_not_finite_is_refused_before_it_is_clipped(
    clip: dict[str, float], bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = Net()
    before = copy.deepcopy(model)
    optim = OptimScheduler("AdamW", {"lr": 1e-2}, model, use_amp=False, grad_clip=clip)
    model.conv.weight.register_hook(lambda g: g.index_fill(0, torch.tensor([0]), bad))
    report = optim.step(model(data(1)[0])).read()
    assert (report.updated, report.skipped) == (False, True)
    assert largest_difference(model, before) == 0
    assert "not finite in conv.weight (1 of 7 gradients)" in caplog.text


def test_a_sparse_gradient_is_clipped_as_a_dense_one() -> None:
    models = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Embedding(9, 3, sparse=sparse)
        for clip in ({"agc": 0.01}, {"value": 0.02}):
            optim = OptimScheduler("SGD", {"lr": 1.0}, model, use_amp=False, grad_clip=clip)
            optim.step(model(torch.tensor([1, 1, 4, 7])).square().sum())
        models.append(model)
    assert largest_difference(*models) < 1e-7
    assert largest_difference(models[0], nn.Embedding(9, 3)) > 0


def test_a_state_says_how_it_was_clipped_and_goes_on() -> None:
    def optim_over(model: nn.Module, clip: Any) -> OptimScheduler:
        return OptimScheduler("AdamW", {"lr": 1e-2}, model, use_amp=False, grad_clip=clip, accum_grad=2)

    clip = {"agc": 0.02, "norm": 1}
    model = Net()
    optim = optim_over(model, clip)
    batches = data(8)
    for x in batches[:5]:
        optim.step(model(x))
    state = copy.deepcopy(optim.state_dict())
    assert state["config"]["grad_clip"] == {"norm": 1.0, "agc": 0.02, "eps": 1e-3}
    twin = copy.deepcopy(model)
    again = optim_over(twin, clip)
    again.load_state_dict(state)
    for x in batches[5:]:
        optim.step(model(x))
        again.step(twin(x))
    assert largest_difference(model, twin) == 0
    with pytest.raises(Exception, match=r"grad_clip: .*'agc': 0.02.* in the checkpoint, 1.0 in the conf"):
        optim_over(Net(), 1.0).load_state_dict(state)
    other = optim_over(Net(), 1.0)
    other.load_state_dict(state, on_mismatch="checkpoint")
    assert other.grad_clip == {"norm": 1.0, "agc": 0.02, "eps": 1e-3}


def test_it_stands_in_yaml_for_all_members_or_for_one() -> None:
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}}
    described = {
        "conv": {"conf": {**conf, "updated_modules": "conv", "grad_clip": {"value": 0.5}}},
        "rest": {"conf": {**conf, "exclude": "conv"}},
    }
    optims = build_optim_sches(Net(), described, grad_clip={"agc": 0.01}, use_amp=False)
    assert optims["conv"].grad_clip == {"value": 0.5}
    assert optims["rest"].grad_clip == {"agc": 0.01, "eps": 1e-3}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, None),
        (2, 2.0),
        ({"norm": 2}, 2.0),
        ({"norm": None}, None),
        ({"norm": 1, "value": 0.5}, {"norm": 1.0, "value": 0.5}),
        ({"norm": None, "value": 0.5}, {"value": 0.5}),
    ],
)
def test_the_forms_of_grad_clip(written: Any, read: Any) -> None:
    assert clip_for(written, 2.0).written == read
    assert clip_for(read, 2.0).written == read


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "grad_clip must be a number, null, {norm: 1.0}, {value: 0.5} or {agc: 0.01}, got {}"),
        ({"eps": 1e-3}, "grad_clip must be a number, null, {norm: 1.0}, {value: 0.5} or {agc: 0.01}, got "),
        ({"valu": 1}, "grad_clip: unknown key 'valu'. Did you mean 'value'? Known: agc, eps, norm, value."),
        ({3: 1}, "grad_clip: unknown key 3. Known: agc, eps, norm, value."),
        ({"value": 1, "agc": 1}, "grad_clip: give value or agc, not both; a norm may stand beside either"),
        ({"value": 1, "eps": 1}, "grad_clip: eps is what weights count at least in agc; write {agc: 0.01, "),
        ({"value": 0}, "grad_clip: value must be a finite number > 0, got 0"),
        ({"value": None}, "grad_clip: value must be a finite number > 0, got None"),
        ({"agc": "1e-2"}, "grad_clip: agc must be a finite number > 0, got '1e-2'; write it without quotes"),
        ({"agc": 0.01, "eps": 0}, "grad_clip: eps must be a finite number > 0, got 0"),
        ({"norm": 0, "agc": 0.01}, "grad_clip must be a finite number > 0, got 0"),
        ([1.0], "grad_clip must be a finite number > 0, got [1.0]"),
    ],
)
def test_a_malformed_grad_clip_says_what_is_allowed(written: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        clip_for(written, 2.0)
    assert str(caught.value).startswith(message)


def test_complex_gradients_have_no_order() -> None:
    model = nn.Linear(2, 2, dtype=torch.complex64)
    with pytest.raises(ConfigError, match="complex gradients cannot be clipped by value"):
        OptimScheduler("SGD", {"lr": 0.1}, model, use_amp=False, grad_clip={"value": 0.1})


def test_R20_clipping_by_value_keeps_float16_within_its_range() -> None:
    """256 squared is beyond float16; clipped to 1, the gradient of 1e4 is not."""
    assert Clip(max_norm=None, limit=ByValue(value=1.0)).applied(1e4, 1.0, torch.float16) == 1e4
    assert Clip(max_norm=None, limit=ByValue(value=256.0)).applied(1e4, 1.0, torch.float16) == math.inf
    assert Clip(max_norm=None, limit=Adaptive(agc=0.1)).applied(1e4, 1.0, torch.float16) == math.inf


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("as_tensor", [True, False])
@pytest.mark.parametrize("limit", [ByValue(value=0.5), Adaptive(agc=0.5)])
def test_what_was_refused_is_left_for_others_to_look_at(
    limit: ByValue | Adaptive, as_tensor: bool, accepted: bool
) -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.tensor([[3.0, 4.0], [0.1, 0.2]])
    before = parameter.grad.clone()
    gradients = PerTensor({"p": parameter}, torch.optim.SGD([parameter], lr=0.1))
    limit.apply(gradients, torch.tensor(accepted) if as_tensor else accepted)
    assert torch.equal(parameter.grad, before) is not accepted


def test_16_bit_units_are_measured_in_float32() -> None:
    """A row of 300s in float16: its norm of 3000 is there, the sum of its squares would not be."""
    parameter = nn.Parameter(torch.ones(1, 100, dtype=torch.float16))
    parameter.grad = torch.full((1, 100), 300.0, dtype=torch.float16)
    gradients = PerTensor({"p": parameter}, torch.optim.SGD([parameter], lr=0.1))
    Adaptive(agc=0.1).apply(gradients, True)
    assert parameter.grad.tolist()[0] == pytest.approx([0.1] * 100, rel=1e-3)  # |w| = 10, of which a tenth
