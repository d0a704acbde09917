"""R40, R44, R46: what people who tried to break it have found, each as torch does it."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from optimscheduler import CheckpointError, OptimScheduler
from tests.cases_models import assert_same, optim_of

LAYOUTS = pytest.mark.parametrize("layout", ["flat", "loose"])
Act = Callable[[nn.Module, Optimizer], Any]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def batch(number: int) -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def conv(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1)).double()
    return model.to(memory_format=memory_format)


def image(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)


class Sides:
    """A model trained by ours and one by torch alone, with the same done to both in between."""

    def __init__(
        self,
        layout: str,
        make: Callable[[], nn.Module] = net,
        optim_type: Callable[..., Optimizer] = Adam,
        data: Callable[[int], Tensor] = batch,
        **conf: Any,
    ) -> None:
        self.models, self.data, self.number = [make(), make()], data, 0
        self.optimizers = [optim_type(m.parameters(), lr=0.01, **conf) for m in self.models]
        arguments: Any = {"grad_clip": None, "use_amp": False, "layout": layout}
        self.optim = OptimScheduler.from_optimizer(self.optimizers[0], self.models[0], **arguments)

    def train(self, batches: int = 4) -> None:
        for _ in range(batches):
            x = self.data(self.number)
            self.optim.step(self.models[0](x).square().mean())
            self.models[1](x).square().mean().backward()
            self.optimizers[1].step()
            self.optimizers[1].zero_grad()
            self.number += 1

    def do(self, act: Act) -> list[Any]:
        return [act(m, o) for m, o in zip(self.models, self.optimizers, strict=True)]

    def agree(self) -> None:
        for ours, theirs in zip(*(m.parameters() for m in self.models), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


# ---- strides, which fused kernels do not look at ----


@LAYOUTS
@pytest.mark.parametrize("optim_type", [Adam, SGD])
def test_R46_weights_brought_to_another_memory_format_in_mid_run(layout: str, optim_type: Any) -> None:
    conf = {"momentum": 0.9} if optim_type is SGD else {}
    sides = Sides(layout, conv, optim_type, image, **conf)
    sides.train()
    sides.do(lambda model, _: model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    sides.train()
    sides.agree()


@LAYOUTS
def test_R46_a_contiguous_state_for_weights_that_are_not(layout: str) -> None:
    first, second = (
        Sides(layout, conv, data=image),
        Sides(layout, lambda: conv(torch.channels_last), data=image),
    )
    first.train()
    for ours, other in zip(second.models, first.models, strict=True):
        ours.load_state_dict(other.state_dict())
    for ours, other in zip(second.optimizers, first.optimizers, strict=True):
        ours.load_state_dict(copy.deepcopy(other.state_dict()))
    second.train()
    second.agree()


@pytest.mark.parametrize("optim_type", [Adam, SGD])
def test_R46_a_gradient_of_other_strides(optim_type: Any) -> None:
    sides = Sides("loose", optim_type=optim_type)
    sides.train(2)
    for model in sides.models:
        weight = model[0].weight
        weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", p.grad.t().contiguous().t()))
    sides.train()
    sides.agree()


@LAYOUTS
@pytest.mark.parametrize("optim_type", [Adam, SGD])
def test_R46_memory_beside_a_parameter_is_nobodys_business(layout: str, optim_type: Any) -> None:
    big = torch.ones(6, 8, dtype=torch.float64)

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(big[:, :4])

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t()

    model = Cut()
    optim = OptimScheduler.from_optimizer(
        optim_type(model.parameters(), lr=0.01), model, use_amp=False, layout=layout
    )
    for number in range(3):
        optim.step(model(batch(number)).square().mean())
    assert bool((big[:, 4:] == 1).all())
    assert bool((big[:, :4] != 1).all())


# ---- what is shown of the state ----


def by_reference(_: nn.Module, optimizer: Optimizer) -> Any:
    return optimizer.state_dict()


def zeros(state: Any) -> Any:
    other = copy.deepcopy(state)
    for entries in other["state"].values():
        entries["exp_avg"].zero_()
    return other


def test_R40_a_state_that_was_kept_by_reference_is_what_it_was() -> None:
    sides = Sides("flat")
    sides.train()
    kept = sides.do(by_reference)
    for optimizer, state in zip(sides.optimizers, kept, strict=True):
        optimizer.load_state_dict(zeros(state))
    sides.train()
    for optimizer, state in zip(sides.optimizers, kept, strict=True):
        optimizer.load_state_dict(copy.deepcopy(state))  # torch shares the counters otherwise
    sides.train()
    sides.agree()


@LAYOUTS
def test_R40_a_state_that_was_taken_out_and_put_back(layout: str) -> None:
    sides = Sides(layout)
    sides.train()
    kept = [optimizer.state for optimizer in sides.optimizers]
    for optimizer in sides.optimizers:
        optimizer.state = defaultdict(dict)
    sides.train()
    for optimizer, state in zip(sides.optimizers, kept, strict=True):
        optimizer.state = state
    sides.train()
    sides.agree()


@LAYOUTS
def test_R44_a_parameter_replaced_in_the_group_before_its_state_is_asked_for(layout: str) -> None:
    sides = Sides(layout)
    sides.train()

    def replace(model: nn.Module, optimizer: Optimizer) -> None:
        layer: Any = model[2]  # type: ignore[index]
        old, new = layer.weight, nn.Parameter(layer.weight.detach() * 2)
        group = optimizer.param_groups[0]["params"]
        group[next(i for i, p in enumerate(group) if p is old)] = new
        layer.weight = new
        optimizer.state[new] = optimizer.state.pop(old)

    sides.do(replace)
    sides.train()
    sides.agree()


Write = Callable[[dict[str, Any]], Any]


def swap(state: dict[str, Any]) -> None:
    torch.utils.swap_tensors(state["exp_avg"], torch.ones_like(state["exp_avg"]))


WRITES: dict[str, Write] = {
    "step.data.zero_": lambda state: state["step"].data.zero_(),
    "step.numpy": lambda state: state["step"].numpy().fill(0),
    "exp_avg.data =": lambda state: setattr(state["exp_avg"], "data", torch.ones_like(state["exp_avg"])),
    "swap_tensors": lambda state: torch.utils.swap_tensors(
        state["exp_avg"], torch.ones_like(state["exp_avg"])
    ),
}


@LAYOUTS
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_R40_writes_that_leave_no_trace_are_heard(
    write: Callable[[dict[str, Any]], Any], layout: str
) -> None:
    sides = Sides(layout)
    sides.train()
    sides.do(lambda model, optimizer: write(optimizer.state[model[0].weight]))  # type: ignore[index]
    sides.train()
    sides.agree()


@LAYOUTS
def test_R40_looking_in_inference_mode(layout: str) -> None:
    sides = Sides(layout)
    sides.train()
    with torch.inference_mode():
        sides.do(lambda _, optimizer: optimizer.state_dict())
        state = sides.optim.state_dict()
    assert len(state["optimizer"]["present"]) == 6
    sides.train()
    sides.agree()


@LAYOUTS
def test_R40_values_of_any_kind_beside_the_optimizers_own(layout: str) -> None:
    sides = Sides(layout)
    sides.train()
    sides.do(lambda model, optimizer: optimizer.state[model[0].weight].update(log=[], more={}))  # type: ignore[index]
    sides.train()
    sides.agree()


@LAYOUTS
def test_R43_model_and_optimizer_go_with_the_last_name_for_them(layout: str) -> None:
    gc.collect()
    gc.disable()
    try:
        sides = Sides(layout)
        sides.train(2)
        there = [weakref.ref(sides.optimizers[0]), weakref.ref(sides.models[0])]
        del sides
        assert [ref() for ref in there] == [None, None]
    finally:
        gc.enable()


# ---- saving asks nobody to step ----


class Lookahead(Optimizer):
    """A wrapper whose step is that of another optimizer."""

    def __init__(self, base: Optimizer) -> None:
        super().__init__(base.param_groups, {"lr": 0.1})
        self.base, self.param_groups = base, base.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        self.base.step()


def test_R45_a_state_is_saved_without_a_step_of_somebody_elses_class() -> None:
    model = net()
    wrapper = Lookahead(SGD(model.parameters(), lr=0.1))
    optim = OptimScheduler.from_optimizer(wrapper, model, use_amp=False, accum_grad=2)
    optim.step(model(batch(0)).square().mean())
    before = [p.detach().clone() for p in model.parameters()]
    optim.state_dict()
    assert_same([p.detach() for p in model.parameters()], before)


def test_R45_a_state_does_not_share_the_configuration_with_the_object() -> None:
    """`dcp.load` writes into the dicts that it is given, and the check would compare a thing with itself."""
    optim = optim_of(net(), "AdamW", lr=2e-3)
    state = optim.state_dict()
    state["config"]["optim_conf"]["lr"] = 1e-3
    with pytest.raises(CheckpointError, match=r"optim_conf\.lr: 0.001 in the checkpoint, 0.002 in the conf"):
        optim.load_state_dict(state)
