"""Which optimizers and which parameters may lie side by side."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from optimscheduler import ConfigError, OptimScheduler
from optimscheduler.gradients import Packed, PerTensor
from optimscheduler.gradients.buffer import Buffer
from optimscheduler.gradients.packable import SCALARS, packable, reason_against
from tests.cases_flat import buffers_of, is_flat
from tests.cases_models import a_model, batches, optim_of, train

# ---- optimizers ----

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "Adadelta": [{}, {"weight_decay": 0.1}, {"rho": 0.5, "maximize": True}],
    "Adagrad": [
        {},
        {"weight_decay": 0.1, "lr_decay": 0.1},
        {"initial_accumulator_value": 0.3, "maximize": True},
    ],
    "Adam": [
        {},
        {"amsgrad": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"maximize": True},
    ],
    "AdamW": [{}, {"amsgrad": True, "weight_decay": 0.1}, {"maximize": True}],
    "Adamax": [{}, {"weight_decay": 0.1}, {"maximize": True}],
    "ASGD": [{"t0": 2}, {"weight_decay": 0.1, "lambd": 0.1}, {"maximize": True}],
    "NAdam": [
        {},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"weight_decay": 0.1, "momentum_decay": 0.1},
        {"maximize": True},
    ],
    "RAdam": [
        {},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"weight_decay": 0.1},
        {"maximize": True},
    ],
    "RMSprop": [{}, {"centered": True}, {"momentum": 0.9, "weight_decay": 0.1}, {"maximize": True}],
    "Rprop": [{}, {"etas": (0.4, 1.3), "step_sizes": (1e-3, 0.5)}, {"maximize": True}],
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.5, "maximize": True},
    ],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]

PUBLIC = sorted(
    name
    for name, found in vars(torch.optim).items()
    if inspect.isclass(found) and issubclass(found, Optimizer) and found is not Optimizer
)
OTHERS = [name for name in PUBLIC if getattr(torch.optim, name) not in SCALARS]


def test_every_optimizer_of_the_list_is_tried_here() -> None:
    assert {c.__name__ for c in SCALARS} == set(OPTIONS)


def kinds(optim_type: str) -> list[dict[str, bool]]:
    """The implementations that there are on a CPU."""
    found = [{"foreach": False}, {"foreach": True}]
    if "fused" in inspect.signature(getattr(torch.optim, optim_type)).parameters:
        found.append({"fused": True})
    return found


@pytest.mark.parametrize(("optim_type", "options"), CASES, ids=lambda value: str(value))
def test_an_optimizer_of_the_list_treats_each_element_for_itself(
    optim_type: str, options: dict[str, Any]
) -> None:
    """One step over all elements is one over the pieces: also where gradients are 0 and weights are large."""
    sizes = [1, 3, 8, 20]
    for kind in kinds(optim_type):
        generator = torch.Generator().manual_seed(0)
        pieces = [nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64) * n) for n in sizes]
        whole = nn.Parameter(torch.cat([p.detach() for p in pieces]))
        conf = {"lr": 0.05, **options, **kind}
        separate = getattr(torch.optim, optim_type)(pieces, **conf)
        together = getattr(torch.optim, optim_type)([whole], **conf)
        start = whole.detach().clone()
        for _ in range(12):
            whole.grad = torch.randn(len(whole), generator=generator, dtype=torch.float64)
            whole.grad[5] = 0
            for p, gradient in zip(pieces, whole.grad.split(sizes), strict=True):
                p.grad = gradient.clone()
            separate.step()
            together.step()
        torch.testing.assert_close(
            whole.detach(), torch.cat([p.detach() for p in pieces]), rtol=1e-13, atol=1e-13
        )
        assert (whole != start).float().mean() > 0.8
        for key, value in together.state[whole].items():
            theirs = [separate.state[p][key] for p in pieces]
            if key in SCALARS[type(together)] or not isinstance(value, Tensor):
                assert all(torch.as_tensor(one == value).all() for one in theirs), key
            else:
                torch.testing.assert_close(value, torch.cat(theirs), rtol=1e-13, atol=1e-13, msg=key)


@pytest.mark.parametrize("optim_type", OPTIONS)
def test_what_is_kept_once_for_a_tensor_is_what_the_list_says(optim_type: str) -> None:
    """Everything else has the parameter's shape, whatever the options."""
    for options in OPTIONS[optim_type]:
        for kind in kinds(optim_type):
            p = nn.Parameter(torch.ones(3, 4))
            optimizer = getattr(torch.optim, optim_type)([p], lr=0.1, **options, **kind)
            for _ in range(2):
                p.grad = torch.ones(3, 4)
                optimizer.step()
            state = {k: v for k, v in optimizer.state[p].items() if isinstance(v, Tensor)}
            once = {key for key, value in state.items() if value.shape != p.shape}
            assert once <= SCALARS[type(optimizer)]
            assert not any(key in SCALARS[type(optimizer)] for key in state if key not in once)


def test_there_are_others() -> None:
    assert {"Adafactor", "LBFGS", "SparseAdam"} <= set(OTHERS)


@pytest.mark.parametrize("optim_type", [name for name in OTHERS if name != "LBFGS"])
def test_with_any_other_optimizer_every_tensor_is_on_its_own_and_it_is_said_why(
    optim_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))  # Muon takes matrices

    reason = f"{optim_type} is not known to treat each element for itself"
    with pytest.raises(ConfigError, match=f"layout: 'flat' is not possible here: {reason}"):
        optim_of(model(), optim_type, layout="flat")
    with caplog.at_level(logging.INFO, "optimscheduler"):
        optim = optim_of(model(), optim_type, layout="auto")
    assert type(optim.member.gradients) is PerTensor
    assert f"layout: loose, every tensor on its own: {reason}" in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.INFO, "optimscheduler"):
        optim_of(model(), optim_type, layout="loose")
    assert not caplog.messages, "it was asked for"


class Mine(Adam):
    pass


def test_an_optimizer_of_ones_own_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    parameter = nn.Parameter(torch.ones(2))
    reason = reason_against(Mine([parameter]), [parameter])
    assert reason == "Mine is not known to treat each element for itself"


def test_a_differentiable_optimizer_is_refused() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = SGD([{"params": parameters[:1]}, {"params": parameters[1:], "differentiable": True}], lr=0.1)
    assert reason_against(optimizer, parameters) == "SGD is differentiable"
    assert reason_against(SGD(parameters, lr=0.1), parameters) is None


@pytest.mark.parametrize("optim_type", OPTIONS)
def test_auto_is_flat_where_it_can_be(optim_type: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "optimscheduler"):
        optim = optim_of(a_model(), optim_type, layout="auto")
        train(optim, batches(1))
    assert isinstance(optim.member.gradients, Packed)
    assert is_flat(optim)
    assert not caplog.messages


def test_an_unknown_layout_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="Known: auto, flat, loose"):
        optim_of(a_model(), layout="flatt")


def test_a_model_without_memory_has_nothing_to_move() -> None:
    model = a_model().to("meta")
    optim = OptimScheduler("SGD", {"lr": 0.1}, model, use_amp=False)
    loss = model(torch.ones(2, 4, device="meta")).sum()
    loss.backward()
    optim.member.gradients.apply_layout()
    assert not optim.member.gradients.moved_elsewhere


# ---- parameters ----


class Holder(nn.Module):
    """Parameters a, b, c with gradients, and whatever is put beside them."""

    def __init__(self, **others: Any) -> None:
        super().__init__()
        for name in "abc":
            self.register_parameter(name, nn.Parameter(torch.ones(2, 3)))
        for name, other in others.items():
            if isinstance(other, nn.Parameter):
                self.register_parameter(name, other)
            else:
                self.register_buffer(name, other)
        for p in self.parameters():
            if p.grad is None and p.layout is torch.strided:
                p.grad = torch.zeros_like(p)

    def packable(self) -> str:
        chosen = {id(p) for p in packable(self.parameters(), self)}
        return "".join(name for name, p in self.named_parameters() if id(p) in chosen)


class Special(nn.Parameter):
    pass


def with_gradient(parameter: nn.Parameter, gradient: Tensor | None) -> nn.Parameter:
    parameter.grad = gradient
    return parameter


ODD: dict[str, Any] = {
    "complex": lambda: nn.Parameter(torch.ones(2, dtype=torch.complex64)),
    "integer": lambda: nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False),
    "empty": lambda: nn.Parameter(torch.ones(0)),
    "every second": lambda: nn.Parameter(torch.ones(2, 6)[:, ::2]),
    "expanded": lambda: nn.Parameter(torch.ones(1, 3).expand(2, 3)),
    "a part of more": lambda: nn.Parameter(torch.ones(4, 3)[:2]),
    "the end of more": lambda: nn.Parameter(torch.ones(4, 3)[2:]),
    "shared between processes": lambda: nn.Parameter(torch.ones(2).share_memory_()),
    "a subclass": lambda: Special(torch.ones(2)),
    "meta": lambda: nn.Parameter(torch.ones(2, device="meta")),
}


def test_plain_parameters_suit() -> None:
    assert Holder().packable() == "abc"


@pytest.mark.parametrize("odd", ODD)
def test_what_does_not_suit_leaves_the_others_in_peace(odd: str) -> None:
    parameter = ODD[odd]()
    if not parameter.is_floating_point() and not parameter.is_complex():
        parameter.grad = None
    model = Holder.__new__(Holder)
    Holder.__init__(model, d=parameter) if odd != "integer" else _with_integers(model, parameter)
    assert model.packable() == "abc"


def _with_integers(model: Holder, parameter: nn.Parameter) -> None:
    Holder.__init__(model)
    model.register_parameter("d", parameter)


def test_only_those_that_are_asked_for_are_chosen() -> None:
    model = Holder()
    assert [id(p) for p in packable([model.c, model.a], model)] == [id(model.c), id(model.a)]


@pytest.mark.parametrize("where", ["parameter", "buffer"])
def test_memory_that_is_anothers_too_does_not_suit(where: str) -> None:
    model = Holder()
    if where == "parameter":
        model.c.data = model.a.data
        assert model.packable() == "b"
    else:
        model.register_buffer("mean", model.a.detach())
        assert model.packable() == "bc"


@pytest.mark.parametrize("where", ["parameter", "buffer"])
def test_views_of_one_memory_do_not_suit(where: str) -> None:
    model = Holder()
    row = torch.ones(12)
    model.a.data = row[:6].view(2, 3)
    if where == "parameter":
        model.b.data = row[6:].view(2, 3)
        assert model.packable() == "c"
    else:
        model.register_buffer("rest", row[6:])
        assert model.packable() == "bc"


def test_a_tensor_beside_the_parameters_that_nobody_registered() -> None:
    """A view that a module keeps as a plain attribute would be left behind."""
    model = Holder()
    model.view = model.a.detach().view(-1)
    assert model.packable() == "bc"
    del model.view
    assert model.packable() == "abc"


def test_one_parameter_twice_is_one_parameter() -> None:
    model = Holder()
    model.register_parameter("again", model.a)
    assert model.packable() == "abc"


def test_an_order_of_strides_of_its_own_suits() -> None:
    model = Holder(
        d=nn.Parameter(torch.ones(3, 2).T),
        e=nn.Parameter(torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)),
        f=nn.Parameter(torch.ones(())),
    )
    assert model.packable() == "abcdef"


def test_what_lies_in_a_buffer_may_move_on() -> None:
    model = Holder()
    buffer = Buffer.around([model.a, model.b, model.c])
    assert model.packable() == "abc", "the buffer is ours"
    buffer.dissolve()
    assert model.packable() == "abc"
    model.c.data = model.a.data
    assert model.packable() == "b", "two in one place"


def test_parameters_of_different_kinds_lie_in_buffers_of_their_own() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3).double()
            self.lonely = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))

        def forward(self, x: Tensor) -> Tensor:
            return (self.one(x) + self.two(x.double())) * self.lonely  # type: ignore[no-any-return]

    rules = [{"ndim": 1, "weight_decay": 0.0}]
    for groups, expected in ((None, [2, 2]), (rules, [])):
        model = Mixed()
        optim = optim_of(model, "AdamW", layout="flat", param_groups=groups)
        with optim.forward():
            loss = model(torch.ones(2, 4)).square().mean()
        optim.step({"loss": loss})
        assert [len(buffer.parameters) for buffer in buffers_of(optim)] == expected
        assert id(model.lonely) not in {id(p) for p in optim.member.gradients.moved_elsewhere}
