"""The two kernels move the weights alike, by gradient x factor / divisor, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from optimscheduler.gradients import PerTensor
from optimscheduler.update.apply import Fused, Kernel, Plain, kernel_for
from tests.cases_models import assert_same, weights

Build = Callable[..., Optimizer]
BUILDS: dict[str, Build] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adagrad": torch.optim.Adagrad,
    "SGD": SGD,
    "momentum": lambda p, **k: SGD(p, momentum=0.9, **k),
    "nesterov": lambda p, **k: SGD(p, momentum=0.9, nesterov=True, **k),
}
YES, NO = torch.tensor(True), torch.tensor(False)


def a_part(dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2).to(dtype)


def plant(part: nn.Linear, times: float) -> PerTensor:
    """Gradients 1, 2, 3, ... x `times`."""
    for p in part.parameters():
        p.grad = times * torch.arange(1.0, 1 + p.numel(), dtype=p.dtype).reshape(p.shape)
    return PerTensor(dict(part.named_parameters()), SGD(part.parameters(), lr=0.1))


def run(
    kernel: Kernel, gradients: PerTensor, factor: float, divisor: float | Tensor, accepted: Tensor
) -> None:
    dtype = gradients.parameters[0].dtype
    left = kernel.divide(gradients, divisor)
    kernel.apply(gradients, torch.tensor(factor, dtype=dtype), left, accepted)


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("divisor", [4.0, torch.tensor(4.0), 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_R18_the_weights_move_by_gradient_times_factor_by_divisor(
    build: Build, fused: bool, divisor: float | Tensor, dtype: torch.dtype
) -> None:
    ours, twin = a_part(dtype), a_part(dtype)
    kernel = kernel_for(build(ours.parameters(), lr=0.1, fused=fused))
    assert type(kernel) is (Fused if fused else Plain)
    textbook = build(twin.parameters(), lr=0.1, fused=False)
    for times in (1.0, -2.0):
        run(kernel, plant(ours, times), 0.5, divisor, YES)
        plant(twin, times * 0.5 / float(divisor))  # powers of two: exact
        textbook.step()
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        # the fused kernel orders its operations differently: a few roundings
        torch.testing.assert_close(p, q, rtol=1e-6 if dtype is torch.float32 else 1e-14, atol=1e-15)


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_R20_refused_nothing_moves(build: Build, fused: bool, first: bool) -> None:
    part = a_part()
    optimizer = build(part.parameters(), lr=0.1, fused=fused)
    kernel = kernel_for(optimizer)
    if not first:
        run(kernel, plant(part, 1.0), 1.0, 1.0, YES)
    before, state = weights(part), {k: dict(v) for k, v in optimizer.state_dict()["state"].items()}
    state = {
        k: {n: t.clone() if isinstance(t, Tensor) else t for n, t in v.items()} for k, v in state.items()
    }
    run(kernel, plant(part, float("nan")), float("nan"), 2.0, NO)
    assert_same(weights(part), before)
    assert_same(optimizer.state_dict()["state"], state)


@pytest.mark.parametrize("fused", [True, False])
def test_R12_a_graph_from_before_an_update_fails_loudly(fused: bool) -> None:
    part = a_part()
    kernel = kernel_for(SGD(part.parameters(), lr=0.1, fused=fused))
    loss = (part(part(torch.ones(1, 3, dtype=torch.float64))[:, [0, 1, 0]])).sum()
    run(kernel, plant(part, 1.0), 1.0, 1.0, YES)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_R12_a_refused_update_leaves_the_graph_usable() -> None:
    part = a_part()
    kernel = kernel_for(SGD(part.parameters(), lr=0.1, fused=True))
    loss = (part(part(torch.ones(1, 3, dtype=torch.float64))[:, [0, 1, 0]])).sum()
    run(kernel, plant(part, 1.0), 1.0, 1.0, NO)
    loss.backward()


def test_the_fused_kernel_never_writes_a_gradient() -> None:
    part = a_part(torch.float32)
    gradients = plant(part, 1.0)
    kernel = kernel_for(SGD(part.parameters(), lr=0.1, fused=True))
    assert kernel.divide(gradients, 3.0) == 3.0
    assert [block._version for block in gradients.blocks()] == [0, 0]


def test_the_plain_kernel_multiplies_by_one_number_and_by_1_not_at_all() -> None:
    part = a_part()
    gradients = plant(part, 1.0)
    kernel = kernel_for(SGD(part.parameters(), lr=0.1, fused=False))
    assert kernel.divide(gradients, 1.0) == 1.0
    assert [block._version for block in gradients.blocks()] == [0, 0]
    kernel.divide(gradients, 3.0)
    assert part.bias.grad is not None
    assert part.bias.grad.tolist() == [1.0 * (1 / 3), 2.0 * (1 / 3)]  # what the textbook writes


def test_an_optimizer_that_does_not_take_a_scale_is_driven_plainly() -> None:
    part = a_part()
    assert type(kernel_for(torch.optim.RMSprop(part.parameters()))) is Plain
    assert type(kernel_for(SGD(part.parameters(), lr=0.1))) is Plain


def test_dampened_momentum_is_driven_plainly() -> None:
    # torch's fused SGD treats the first update of a dampened buffer differently
    part = a_part()
    optimizer = SGD(part.parameters(), lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    assert type(kernel_for(optimizer)) is Plain


class Recorded(SGD):
    """Stands for an optimizer on an accelerator: says what its kernel was handed."""

    def __init__(self, params: Any, **conf: Any) -> None:
        super().__init__(params, **conf)
        self.handed: list[Any] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        buffers = [self.state[p].get("momentum_buffer") for g in self.param_groups for p in g["params"]]
        self.handed.append((self.grad_scale, self.found_inf, buffers))  # type: ignore[attr-defined]


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("accepted", [True, False])
def test_R20_R24_on_an_accelerator_the_kernel_decides_and_its_momentum_is_there_before(
    momentum: float, accepted: bool
) -> None:
    part = a_part(torch.float32).to("meta")
    optimizer = Recorded(part.parameters(), lr=0.1, momentum=momentum)
    part.bias.grad = torch.zeros(2, device="meta")  # and no gradient for the weight
    with patch("optimscheduler.update.apply.increment_version") as incremented:
        Fused(optimizer).apply(
            PerTensor(dict(part.named_parameters()), SGD(part.parameters(), lr=0.1)),
            torch.tensor(0.5, device="meta"),
            torch.tensor(4.0, device="meta"),
            torch.tensor(accepted, device="meta"),
        )
    incremented.assert_called_once()
    ((scale, found, (of_weight, of_bias)),) = optimizer.handed
    assert (scale.device.type, scale.dtype, found.dtype) == ("meta", torch.float32, torch.float32)
    assert of_weight is None
    assert (of_bias is not None) == bool(momentum)
    assert not hasattr(optimizer, "grad_scale")
    assert not hasattr(optimizer, "found_inf")


def test_R24_momentum_of_other_optimizers_is_their_own_affair() -> None:
    part = a_part()
    optimizer = torch.optim.Adam(part.parameters(), fused=True)
    plant(part, 1.0)
    Fused(optimizer)._create_momentum()
    assert not optimizer.state


def test_a_failing_step_leaves_no_scale_behind() -> None:
    part = a_part(torch.float32)
    optimizer = SGD(part.parameters(), lr=0.1, fused=True)
    with patch.object(SGD, "step", side_effect=RuntimeError("no")), pytest.raises(RuntimeError, match="no"):
        run(Fused(optimizer), plant(part, 1.0), 0.5, 2.0, YES)
    assert not hasattr(optimizer, "grad_scale")
