"""R09, R20, R25: what users do to a model between two steps has the same result in either layout.

In every test a flat layout is seen to be one before something is done to it.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.checkpoint import checkpoint

from optimscheduler import OptimScheduler, OptimSchedulerDict
from optimscheduler.gradients.packed import LARGEST_PACKED
from tests.cases_flat import (
    Branches,
    Do,
    Draw,
    agree,
    buffers_of,
    dissolved,
    draws,
    go,
    is_flat,
    pair,
    play,
)
from tests.cases_models import assert_same, optim_of, stored, weights

ALWAYS, WITHOUT = "ssssssssss", "ssss--ssss"
"""The side has a gradient in every batch, and not in the third window of two."""

BETWEEN, MID = 5, 6
"""The batches before which the third window of two has not begun, and is open."""

CONFS: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 0.02, "weight_decay": 0.1},
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
}


def over(optim: OptimScheduler) -> list[nn.Parameter]:
    return list(optim.model.parameters())


# ---- gradients ----


def drop_model(optim: OptimScheduler) -> None:
    optim.model.zero_grad(set_to_none=True)


def zero_model(optim: OptimScheduler) -> None:
    optim.model.zero_grad(set_to_none=False)


def drop_optimizer(optim: OptimScheduler) -> None:
    optim.optimizer.zero_grad(set_to_none=True)


def zero_optimizer(optim: OptimScheduler) -> None:
    optim.optimizer.zero_grad(set_to_none=False)


def zero_side(optim: OptimScheduler) -> None:
    optim.model.side.zero_grad(set_to_none=False)


def drop_side(optim: OptimScheduler) -> None:
    optim.model.side.zero_grad(set_to_none=True)


def plant_all(optim: OptimScheduler) -> None:
    for p in over(optim):
        p.grad = torch.full_like(p, 0.3)


def plant_side(optim: OptimScheduler) -> None:
    optim.model.side.weight.grad = torch.full_like(optim.model.side.weight, 0.3)


def plant_transposed(optim: OptimScheduler) -> None:
    weight = optim.model.first.weight
    weight.grad = torch.full_like(weight.T, 0.2).T


def backward_of_ones_own(optim: OptimScheduler) -> None:
    optim.model(torch.ones(2, 4, dtype=torch.float64)).backward()


def backward_of_the_trunk(optim: OptimScheduler) -> None:
    optim.model(torch.ones(2, 4, dtype=torch.float64), False).backward()


def drop_and_backward(optim: OptimScheduler) -> None:
    optim.optimizer.zero_grad()
    backward_of_ones_own(optim)


def zero_and_backward(optim: OptimScheduler) -> None:
    optim.optimizer.zero_grad(set_to_none=False)
    backward_of_ones_own(optim)


def drop_model_and_backward(optim: OptimScheduler) -> None:
    optim.model.zero_grad()
    backward_of_the_trunk(optim)


def drop_both(optim: OptimScheduler) -> None:
    optim.optimizer.zero_grad()
    optim.model.zero_grad()


GRADIENTS = [
    drop_model,
    zero_model,
    drop_optimizer,
    zero_optimizer,
    zero_side,
    drop_side,
    drop_both,
    plant_all,
    plant_side,
    plant_transposed,
    backward_of_ones_own,
    backward_of_the_trunk,
    drop_and_backward,
    zero_and_backward,
    drop_model_and_backward,
]


@pytest.mark.parametrize("sides", [ALWAYS, WITHOUT], ids=["always", "without"])
@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
@pytest.mark.parametrize("do", GRADIENTS, ids=lambda do: do.__name__)
@pytest.mark.parametrize("optim_type", CONFS)
def test_R09_gradients_dropped_zeroed_or_planted(
    optim_type: str, do: Do, at: int, sides: str, caplog: pytest.LogCaptureFixture
) -> None:
    both = pair(optim_type=optim_type, conf=CONFS[optim_type], accum_grad=2)
    play(both, draws(sides), do, at)
    assert is_flat(both[0])
    assert not dissolved(caplog)


@pytest.mark.parametrize("do", GRADIENTS, ids=lambda do: do.__name__)
@pytest.mark.parametrize("sides", [ALWAYS, "s-s-s--s-s"], ids=["always", "now and then"])
def test_R09_gradients_dropped_zeroed_or_planted_before_every_batch(do: Do, sides: str) -> None:
    both = pair()
    play(both, draws(sides), do, range(2, 11))
    assert is_flat(both[0])


@pytest.mark.parametrize("do", [drop_model, drop_optimizer, drop_both], ids=lambda do: do.__name__)
def test_R13_gradients_dropped_before_a_flush_are_not_applied(do: Do) -> None:
    both = pair(accum_grad=3)
    for batch in draws("sssss"):
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    before = weights(both[0].model)
    for optim in both:
        do(optim)
        optim.flush()
    agree(*(optim.model for optim in both))
    assert all(torch.equal(w, before[n]) for n, w in weights(both[1].model).items()), "there was no gradient"


def test_R09_a_gradients_data_replaced_while_another_is_looked_at() -> None:
    """As in `p.grad.data = p.grad.data.clamp(-1, 1)`."""
    seen: list[Tensor] = []

    def do(optim: OptimScheduler) -> None:
        if is_flat(optim):
            seen.append(optim.model.last.weight.grad.view(-1))
        weight = optim.model.first.weight
        weight.grad.data = weight.grad.data.clamp(-1e-3, 1e-3)

    play(pair(accum_grad=2), draws(ALWAYS), do, MID)
    assert seen


def test_gradients_are_what_torch_makes_them_and_none_between_windows() -> None:
    both = pair(accum_grad=2)
    for number, batch in enumerate(draws(WITHOUT), start=1):
        for optim in both:
            go(optim, batch)
        for mine, theirs in zip(over(both[0]), over(both[1]), strict=True):
            if number % 2 == 0 or theirs.grad is None:
                assert mine.grad is theirs.grad is None
            else:
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-9)
    assert is_flat(both[0])


@pytest.mark.parametrize("at", [BETWEEN, MID])
def test_a_backward_that_builds_a_graph(at: int) -> None:
    def do(optim: OptimScheduler) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a reference cycle; torch warns once in a process
            optim.model(torch.ones(2, 4, dtype=torch.float64)).backward(create_graph=True)

    both = pair(accum_grad=2)
    play(both, draws(WITHOUT), do, at)
    assert is_flat(both[0])


def with_penalty(optim: OptimScheduler, draw: Draw) -> None:
    """A gradient penalty, whose backward goes through a backward."""
    x = draw[0].requires_grad_()
    with optim.forward():
        loss = optim.model(x, draw[1])
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    optim.step({"loss": loss + slope.square().sum()})


def test_a_gradient_penalty() -> None:
    both = pair(accum_grad=2)
    play(both, draws(WITHOUT), lambda optim: None, BETWEEN, with_penalty)
    assert is_flat(both[0])


# ---- hooks ----


def halve(p: Tensor) -> None:
    p.grad = p.grad * 0.5 if p.grad is not None else None


def halve_in_place(p: Tensor) -> None:
    assert p.grad is not None
    p.grad.mul_(0.5)


def drop(p: Tensor) -> None:
    p.grad = None


@pytest.mark.parametrize("sides", [ALWAYS, WITHOUT], ids=["always", "without"])
@pytest.mark.parametrize("hook", [halve, halve_in_place, drop], ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("on", ["first.weight", "last.bias"])
def test_a_hook_after_the_gradient_was_added(hook: Callable[[Tensor], None], on: str, sides: str) -> None:
    def do(optim: OptimScheduler) -> None:
        optim.model.get_parameter(on).register_post_accumulate_grad_hook(hook)

    both = pair(accum_grad=2)
    play(both, draws(sides), do, BETWEEN)
    assert is_flat(both[0])


def test_a_hook_on_the_gradient() -> None:
    def do(optim: OptimScheduler) -> None:
        optim.model.first.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))

    both = pair(accum_grad=2)
    play(both, draws(WITHOUT), do, MID)
    assert is_flat(both[0])


@pytest.mark.parametrize("sides", ["ssssss----", "s-s-sss-s-"])
@pytest.mark.parametrize("touched", ["", "side", "last"])
def test_a_step_hook_that_writes_gradients(
    touched: str, sides: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it writes is applied, and is no gradient of the next window; that it is slower is said once."""
    caplog.set_level("INFO", "optimscheduler")

    def do(optim: OptimScheduler) -> None:
        def clamp(*_: object) -> None:
            for p in optim.model.get_submodule(touched).parameters():
                if p.grad is not None:
                    p.grad.clamp_(-0.01, 0.01)

        optim.optimizer.register_step_pre_hook(clamp)

    both = pair(conf={"lr": 0.02, "weight_decay": 0.1, "fused": False})
    play(both, draws(sides), do, 2)
    assert both[0].member.gradients.stepped is both[0].optimizer
    assert not dissolved(caplog)
    assert caplog.text.count("somebody watches the optimizer's step") == 1  # both[1] has no other kernel


@pytest.mark.parametrize("sides", [ALWAYS, WITHOUT], ids=["always", "without"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("hook", [halve, halve_in_place, drop], ids=lambda hook: hook.__name__)
def test_a_step_hook_that_changes_one_gradient(
    hook: Callable[[Tensor], None], everywhere: bool, fused: bool, sides: str
) -> None:
    """In place, by another tensor, or by none; of this optimizer, or of all."""
    handles: list[Any] = []

    def do(optim: OptimScheduler) -> None:
        def change(optimizer: torch.optim.Optimizer, *_: object) -> None:
            if optimizer is optim.optimizer:
                hook(optim.model.last.weight)

        register = register_optimizer_step_pre_hook if everywhere else optim.optimizer.register_step_pre_hook
        handles.append(register(change))

    try:
        both = pair(conf={"lr": 0.02, "weight_decay": 0.1, "fused": fused})
        play(both, draws(sides), do, BETWEEN)
        assert both[0].member.gradients.stepped is both[0].optimizer
    finally:
        for handle in handles:
            handle.remove()
    play(both, draws(sides), lambda _: None, 1)
    assert is_flat(both[0])
    assert both[0].member.gradients.stepped is not both[0].optimizer


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [None, True, False])
def test_R41_a_hook_before_the_step_sees_the_gradient_as_it_is_applied(
    layout: str, fused: bool | None
) -> None:
    """Sum of two batches / 2, unscaled, clipped: what a hand-written loop would hold at this place."""
    optim = optim_of(
        Branches(),
        "AdamW",
        layout=layout,
        accum_grad=2,
        grad_clip=0.01,
        use_amp="fp16",
        conf={"fused": fused},
    )
    seen: list[Tensor] = []
    optim.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in optim.model.parameters()]))  # type: ignore[union-attr]
    )
    for batch in draws("ssss"):
        go(optim, batch)
    assert len(seen) == 2
    for gradient in seen:
        assert float(gradient.norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_step_hook_that_writes_weights() -> None:
    def do(optim: OptimScheduler) -> None:
        @torch.no_grad()
        def clamp(*_: object) -> None:
            for p in optim.model.parameters():
                p.clamp_(-0.2, 0.2)

        optim.optimizer.register_step_post_hook(clamp)

    both = pair()
    play(both, draws(WITHOUT), do, BETWEEN)
    assert max(float(p.detach().abs().max()) for p in over(both[0])) == 0.2


def test_a_step_hook_over_the_optimizers_own_parameters() -> None:
    def do(optim: OptimScheduler) -> None:
        @torch.no_grad()
        def shrink(optimizer: torch.optim.Optimizer, *_: object) -> None:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.mul_(0.9)

        optim.optimizer.register_step_post_hook(shrink)

    both = pair()
    play(both, draws(ALWAYS), do, BETWEEN)
    assert is_flat(both[0])


# ---- weights ----


@torch.no_grad()
def clamp(optim: OptimScheduler) -> None:
    for p in over(optim):
        p.clamp_(-0.2, 0.2)


def clamp_data(optim: OptimScheduler) -> None:
    for p in over(optim):
        p.data.clamp_(-0.2, 0.2)


def load(optim: OptimScheduler) -> None:
    optim.model.load_state_dict(Branches(seed=5).state_dict())


def ema_in_and_out(optim: OptimScheduler) -> None:
    own = [p.data for p in over(optim)]
    for p, q in zip(over(optim), Branches(seed=5).parameters(), strict=True):
        p.data = q.data
    with torch.no_grad():
        optim.model(torch.ones(2, 4))
    for p, data in zip(over(optim), own, strict=True):
        p.data = data


def swap_by_copy(optim: OptimScheduler) -> None:
    own = weights(optim.model)
    load(optim)
    optim.model.load_state_dict(own)


def evaluate(optim: OptimScheduler) -> None:
    optim.model.eval()
    with torch.inference_mode():
        optim.model(torch.ones(2, 4))
    optim.model.train()


def save(optim: OptimScheduler) -> None:
    torch.save(optim.model, io.BytesIO())
    torch.save(optim.model.state_dict(), io.BytesIO())
    copy.deepcopy(optim.model)
    optim.state_dict()


@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
@pytest.mark.parametrize(
    "do", [clamp, clamp_data, load, ema_in_and_out, swap_by_copy, evaluate, save], ids=lambda do: do.__name__
)
def test_what_writes_weights_where_they_are_leaves_the_layout(
    do: Do, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    both = pair(accum_grad=2)
    play(both, draws(ALWAYS), do, at)
    assert is_flat(both[0])
    assert not dissolved(caplog)


def clone_one(optim: OptimScheduler) -> None:
    optim.model.last.weight.data = optim.model.last.weight.data.clone() * 0.5


def clone_all(optim: OptimScheduler) -> None:
    for p in over(optim):
        p.data = p.data.clone()


def exchange(optim: OptimScheduler) -> None:
    last, side = optim.model.last.weight, optim.model.side.weight
    last.data, side.data = side.data, last.data


def tie(optim: OptimScheduler) -> None:
    optim.model.side.weight.data = optim.model.last.weight.data


def tie_back(optim: OptimScheduler) -> None:
    optim.model.last.weight.data = optim.model.side.weight.data


def as_vector(optim: OptimScheduler) -> None:
    vector = nn.utils.parameters_to_vector(optim.model.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 0.5, optim.model.parameters())


def share(optim: OptimScheduler) -> None:
    optim.model.share_memory()


def there_and_back(optim: OptimScheduler) -> None:
    optim.model.to(torch.float32).to(torch.float64)


def fortran(optim: OptimScheduler) -> None:
    optim.model.first.weight.data = optim.model.first.weight.data.T.contiguous().T


MOVES = [clone_one, clone_all, exchange, tie, tie_back, as_vector, share, there_and_back, fortran]


@pytest.mark.parametrize("sides", [ALWAYS, WITHOUT], ids=["always", "without"])
@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
@pytest.mark.parametrize("do", MOVES, ids=lambda do: do.__name__)
@pytest.mark.parametrize("optim_type", CONFS)
@pytest.mark.filterwarnings("ignore:grad and param do not obey")
def test_weights_moved_elsewhere_dissolve_the_layout_once_and_keep_everything(
    optim_type: str, do: Do, at: int, sides: str, caplog: pytest.LogCaptureFixture
) -> None:
    both = pair(optim_type=optim_type, conf=CONFS[optim_type], accum_grad=2)
    play(both, draws(sides), do, at)
    assert not both[0].member.gradients.moved_elsewhere
    assert sum("layout: loose from here on" in message for message in caplog.messages) == 1
    assert "moved to other memory" in caplog.text


@pytest.mark.parametrize("do", [tie, tie_back], ids=lambda do: do.__name__)
def test_weights_tied_in_mid_run_stay_tied(do: Do) -> None:
    both = pair()
    play(both, draws(ALWAYS), do, BETWEEN)
    for optim in both:
        assert torch.equal(optim.model.last.weight, optim.model.side.weight)


@pytest.mark.parametrize(("start", "then"), [(torch.float32, torch.float64), (torch.float32, torch.bfloat16)])
@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
def test_another_dtype(
    start: torch.dtype, then: torch.dtype, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its state keeps the old one, as in torch, whose plain kernels do not mind."""

    def do(optim: OptimScheduler) -> None:
        optim.model.to(then)

    conf = {"lr": 0.02, "momentum": 0.9, "fused": False, "foreach": False}
    both = pair(lambda: Branches(start), "SGD", conf=conf, accum_grad=2, grad_clip=None)
    for number, batch in enumerate(draws(WITHOUT), start=1):
        if number == at:
            assert is_flat(both[0])
            for optim in both:
                do(optim)
        for optim in both:
            go(optim, batch)
        agree(both[0].model, both[1].model, rel=1e-5 if then is torch.float64 else 1e-2)
    assert not both[0].member.gradients.moved_elsewhere
    assert dissolved(caplog)


@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
def test_parameters_assigned_by_load_state_dict_are_strangers(at: int) -> None:
    """As to every optimizer of torch: it goes on with the old ones."""

    def do(optim: OptimScheduler) -> None:
        optim.model.load_state_dict(Branches(seed=5).state_dict(), assign=True)

    play(pair(accum_grad=2), draws(ALWAYS), do, at)


@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
def test_a_module_swapped_for_another(at: int) -> None:
    """The old one gets no gradient any more and must not decay."""
    old: list[nn.Linear] = []

    def do(optim: OptimScheduler) -> None:
        old.append(optim.model.side)
        optim.model.side = copy.deepcopy(optim.model.side)

    both = pair(accum_grad=2)
    play(both, draws(ALWAYS), do, at)
    assert is_flat(both[0])
    agree(*old)


def test_an_alias_of_a_weight_from_before() -> None:
    """As `state_dict()` holds it, to be saved when training is over."""
    states: list[dict[str, Tensor]] = []

    def make() -> nn.Module:
        model = Branches()
        states.append(model.state_dict())
        return model

    both = pair(make)
    for batch in draws("sss"):
        for optim in both:
            go(optim, batch)
    for name, tensor in states[1].items():
        torch.testing.assert_close(states[0][name], tensor, rtol=1e-10, atol=1e-10)
    assert not is_flat(both[0])
    states.clear()
    for batch in draws("sss"):
        for optim in both:
            go(optim, batch)
        agree(*(optim.model for optim in both))
    assert is_flat(both[0]), "nobody looks any more"


def test_an_alias_of_one_weight_keeps_that_one_alone() -> None:
    views: list[Tensor] = []

    def make() -> nn.Module:
        model = Branches()
        views.append(model.last.weight.detach())
        return model

    both = pair(make)
    for batch in draws("sss"):
        for optim in both:
            go(optim, batch)
        agree(*(optim.model for optim in both))
    assert is_flat(both[0])
    assert len(both[0].member.gradients.moved_elsewhere) == 7
    torch.testing.assert_close(*views, rtol=1e-10, atol=1e-10)
    assert views[0].data_ptr() == both[0].model.last.weight.data_ptr()


def test_an_alias_of_a_weight_from_before_the_first_update_follows_it() -> None:
    both = pair()
    states = [optim.model.state_dict() for optim in both]
    for batch in draws("sss"):
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    for name, tensor in both[0].model.state_dict().items():
        assert torch.equal(states[0][name], tensor)


@pytest.mark.parametrize("how", [clone_one, lambda optim: optim.model.to(torch.float32)], ids=["one", "all"])
def test_moved_before_the_first_update_they_are_laid_side_by_side_again(
    how: Do, caplog: pytest.LogCaptureFixture
) -> None:
    both = pair()
    for optim in both:
        how(optim)
    for batch in draws("sss"):
        for optim in both:
            go(optim, batch)
        agree(*(optim.model for optim in both), rel=1e-5)
    assert is_flat(both[0])
    assert not dissolved(caplog)


def test_a_second_optimscheduler_lies_flat_while_the_first_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """As in `optim = OptimScheduler(...)` for a second phase: the name is bound after the second is built."""
    both = pair()
    for batch in draws("sss"):
        for optim in both:
            go(optim, batch)
    conf = {"lr": 0.02}
    second = [
        optim_of(optim.model, "Adam", layout=layout, conf=conf)
        for optim, layout in zip(both, ("flat", "loose"), strict=True)
    ]
    assert is_flat(second[0])
    for batch in draws("sss"):
        for optim in second:
            go(optim, batch)
    agree(*(optim.model for optim in both))
    assert not dissolved(caplog)
    for optim in both:
        go(optim, draws("s")[0])  # the first's weights were taken from it
    agree(*(optim.model for optim in both))
    assert dissolved(caplog)


def test_an_alias_of_a_weight_that_lies_in_a_buffer_follows_it() -> None:
    """Also when the layout is given up, or the parameter leaves."""
    for do in (lambda optim: None, clone_one, drop_model):
        both = pair()
        for batch in draws("ss"):
            for optim in both:
                go(optim, batch)
        assert is_flat(both[0])
        views = [optim.model.first.weight.detach() for optim in both]
        for optim in both:
            do(optim)
        for batch in draws("s--s"):
            for optim in both:
                go(optim, batch)
        torch.testing.assert_close(*views, rtol=1e-10, atol=1e-10)
        assert torch.equal(views[0], both[0].model.first.weight)


# ---- frozen, unfrozen, without gradient ----


@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
@pytest.mark.parametrize("optim_type", CONFS)
def test_a_layer_frozen_and_unfrozen(optim_type: str, at: int) -> None:
    both = pair(optim_type=optim_type, conf=CONFS[optim_type], accum_grad=2)
    data = draws("s" * 20)

    def turn(optim: OptimScheduler) -> None:
        for p in optim.model.last.parameters():
            p.requires_grad_(not p.requires_grad)

    play(both, data[:10], turn, at)
    frozen = list(both[0].model.last.parameters())
    stored_tensors = {id(p) for p in both[0].member.gradients.moved_elsewhere}
    assert not stored_tensors & {id(p) for p in frozen}
    play(both, data[10:], turn, at)
    stored_tensors = {id(p) for p in both[0].member.gradients.moved_elsewhere}
    assert stored_tensors >= {id(p) for p in frozen}, "they have come back"


@pytest.mark.parametrize("how", ["drop", "keep"])
def test_frozen_from_the_start_then_unfrozen(how: str) -> None:
    def make() -> nn.Module:
        model = Branches()
        model.last.requires_grad_(False)
        return model

    def unfreeze(optim: OptimScheduler) -> None:
        optim.model.last.requires_grad_(True)
        if how == "drop":
            optim.model.zero_grad()

    both = pair(make, accum_grad=2)
    play(both, draws(ALWAYS), unfreeze, BETWEEN)
    assert is_flat(both[0])
    assert id(both[0].model.last.weight) in {id(p) for p in both[0].member.gradients.moved_elsewhere}


@pytest.mark.parametrize("optim_type", CONFS)
@pytest.mark.parametrize("habit", ["", "model", "optimizer", "model to zeros", "optimizer to zeros"])
def test_without_a_gradient_nothing_decays_and_no_moment_moves(optim_type: str, habit: str) -> None:
    """Whatever a user's habits of zeroing gradients before each batch are."""
    dos = {
        "": lambda optim: None,
        "model": drop_model,
        "optimizer": drop_optimizer,
        "model to zeros": zero_model,
        "optimizer to zeros": zero_optimizer,
    }
    both = pair(optim_type=optim_type, conf=CONFS[optim_type])
    data = draws("sssss---ss")
    for number, batch in enumerate(data, start=1):
        before = {n: w for n, w in weights(both[0].model).items() if n.startswith("side")}
        states = [copy.deepcopy(o.state_dict()["optimizer"]["state"]) for o in both]
        assert number == 1 or is_flat(both[0])
        for optim in both:
            dos[habit](optim)
            go(optim, batch)
        if not batch[1]:
            for name, weight in before.items():
                assert torch.equal(both[0].model.get_parameter(name), weight), f"{name} has moved"
                for optim, state in zip(both, states, strict=True):
                    now = optim.state_dict()["optimizer"]["state"][name]
                    assert all(torch.equal(value, now[key]) for key, value in state[name].items())
        agree(*(optim.model for optim in both))


@pytest.mark.parametrize("accum_grad", [1, 3])
@pytest.mark.parametrize("optim_type", ["Adam", "SGD", "RAdam", "NAdam", "ASGD", "Rprop"])
def test_layers_skipped_at_random(optim_type: str, accum_grad: int) -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5)).double()

        def forward(self, x: Tensor, _: bool) -> Tensor:
            luck = int(x.abs().sum() * 1000)
            for i, layer in enumerate(self.layers):
                if (luck + i) % 3 or not i:
                    x = x + torch.tanh(layer(x))
            return (x - 1).square().mean()

    both = pair(Drops, optim_type, conf={"lr": 0.01}, accum_grad=accum_grad)
    data = draws("s" * 30)
    data[0:0] = data[:1]
    play(both, data, lambda optim: None, 1)


def test_R20_a_refused_gradient_changes_nothing() -> None:
    def poison(optim: OptimScheduler) -> None:
        before = copy.deepcopy((weights(optim.model), optim.state_dict()["optimizer"]["state"]))
        with optim.forward():
            loss = optim.model(*draws("-")[0])
        assert optim.step({"loss": loss * torch.nan}).read().skipped
        after = (weights(optim.model), optim.state_dict()["optimizer"]["state"])
        torch.testing.assert_close(before, after, rtol=0, atol=0)

    both = pair()
    play(both, draws(WITHOUT), poison, BETWEEN)
    assert is_flat(both[0])


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("at", [BETWEEN, MID], ids=["between", "mid"])
@pytest.mark.parametrize("sides", [ALWAYS, WITHOUT], ids=["always", "without"])
def test_R09_a_backward_that_breaks_off_leaves_no_half_a_gradient(sides: str, at: int) -> None:
    def breaks(optim: OptimScheduler) -> None:
        def fail(_: Tensor) -> None:
            raise BrokenError

        hook = optim.model.first.weight.register_hook(fail)
        with optim.forward():
            loss = optim.model(torch.ones(2, 4, dtype=torch.float64))
        with pytest.raises(BrokenError):
            optim.step({"loss": loss})
        hook.remove()
        assert not any(p.grad is not None and p.grad.any() for p in over(optim))

    both = pair(accum_grad=2)
    play(both, draws(sides), breaks, at)
    assert is_flat(both[0])


# ---- copies, and others over the same model ----


@pytest.mark.parametrize("by", ["deepcopy", "pickle", "state_dict"])
def test_a_copy_of_the_model_is_independent(by: str) -> None:
    both = pair()
    data = draws(ALWAYS)
    for batch in data[:4]:
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    before = weights(both[0].model)
    copies = []
    for optim in both:
        if by == "deepcopy":
            model = copy.deepcopy(optim.model)
        elif by == "pickle":
            file = io.BytesIO()
            torch.save(optim.model, file)
            file.seek(0)
            model = torch.load(file, weights_only=False)
        else:
            model = Branches(seed=8)
            model.load_state_dict(optim.model.state_dict())
        copies.append(optim_of(model, "AdamW", layout=optim.layout, conf={"lr": 0.02, "weight_decay": 0.1}))
    for batch in data[4:]:
        for optim in copies:
            go(optim, batch)
        agree(*(optim.model for optim in copies))
    assert all(torch.equal(w, before[n]) for n, w in weights(both[0].model).items())
    assert not torch.equal(copies[0].model.first.weight, both[0].model.first.weight)
    if by != "pickle":  # views of one memory in the file too
        assert is_flat(copies[0])
    for batch in data:
        for optim in both:
            go(optim, batch)
        agree(*(optim.model for optim in both))
    assert is_flat(both[0])


def test_a_copy_of_an_optimscheduler_has_the_same_state_and_takes_one() -> None:
    """Between windows: torch does not copy gradients with parameters."""
    both = pair(accum_grad=2)
    for batch in draws("ssss"):
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    for optim in both:
        state = optim.state_dict()
        for twin in (copy.deepcopy(optim), stored_whole(optim)):
            assert_same({**twin.state_dict(), "layout": None}, {**state, "layout": None})
            twin.load_state_dict(stored(state))
            assert_same({**twin.state_dict(), "layout": None}, {**state, "layout": None})
    assert is_flat(both[0])


def stored_whole(optim: OptimScheduler) -> OptimScheduler:
    file = io.BytesIO()
    torch.save(optim, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("by", [copy.deepcopy, stored_whole], ids=["copied", "stored"])
def test_a_copy_of_model_and_optimscheduler_together(by: Callable[[OptimScheduler], OptimScheduler]) -> None:
    both = pair(accum_grad=2)
    data = draws(ALWAYS)
    for batch in data[:5]:
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    before = weights(both[0].model)
    copies = tuple(by(optim) for optim in both)
    for batch in data:
        for optim in copies:
            go(optim, batch)
        agree(*(optim.model for optim in copies))
    states = [optim.state_dict()["optimizer"]["state"] for optim in copies]
    torch.testing.assert_close(*states, rtol=1e-10, atol=1e-10)
    assert all(torch.equal(w, before[n]) for n, w in weights(both[0].model).items())
    for batch in data:
        for optim in both:
            go(optim, batch)
        agree(*(optim.model for optim in both))


@pytest.mark.parametrize("updated", [None, ["first", "side"], ["last", "side"]])
@pytest.mark.parametrize("sides", ["ssssssssss", "ssss------"])
def test_R09_a_second_optimscheduler_after_the_first_one(updated: list[str] | None, sides: str) -> None:
    """Phase two of a training: what has no gradient in it must not decay."""
    both, data = pair(), draws(sides)
    for batch in data[:4]:
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    seconds = tuple(
        optim_of(
            optim.model,
            "AdamW",
            layout=optim.layout,
            updated_modules=updated,
            conf={"lr": 0.02, "weight_decay": 0.1},
        )
        for optim in both
    )
    before = weights(both[0].model)
    for batch in data[4:]:
        for optim in seconds:
            go(optim, batch)
        agree(*(optim.model for optim in seconds))
    for name, p in both[0].model.named_parameters():
        moves = (updated is None or name.split(".")[0] in updated) and (
            sides[-1] == "s" or "side" not in name
        )
        assert torch.equal(p, before[name]) is not moves
    if updated is None:
        assert is_flat(seconds[0])


@pytest.mark.parametrize("sides", ["ssssssssss", "ssss---ss-"])
def test_R09_back_to_the_first_one(sides: str) -> None:
    """Both are over the whole model; they take turns."""
    both, data = pair(), draws(sides)
    for batch in data[:4]:
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    conf = {"lr": 0.02, "weight_decay": 0.1}
    seconds = tuple(optim_of(optim.model, "AdamW", layout=optim.layout, conf=conf) for optim in both)
    for number, batch in enumerate(data[4:]):
        for first, second in zip(both, seconds, strict=True):
            go(first if number % 2 else second, batch)
        agree(*(optim.model for optim in both))


def test_a_plain_optimizer_of_torch_after_it() -> None:
    both = pair()
    for batch in draws("ssss"):
        for optim in both:
            go(optim, batch)
    assert is_flat(both[0])
    optimizers = [torch.optim.AdamW(over(optim), lr=0.02, weight_decay=0.1) for optim in both]
    for batch in draws("s-s-"):
        for optim, optimizer in zip(both, optimizers, strict=True):
            optimizer.zero_grad()
            optim.model(*batch).backward()
            optimizer.step()
        agree(*(optim.model for optim in both))


# ---- kinds of models ----


def fed(make: Callable[[], nn.Module], x: Tensor, optim_type: str = "Adam", **arguments: Any) -> list[Any]:
    """Six updates in both layouts, alternating inputs; flat from the first on."""
    both = pair(make, optim_type, **{"conf": {"lr": 0.01}, **arguments})
    for number in range(1, 7):
        for optim in both:
            with optim.forward():
                out = optim.model(x if number % 2 else x.flip(0))
                out = out[0] if isinstance(out, tuple) else out
            optim.step({"loss": (out - 0.5).square().mean()})
        assert is_flat(both[0])
        agree(*(optim.model for optim in both))
    return list(both)


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return make().double()

    return build


X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_an_lstm() -> None:
    fed(seeded(lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True)), X)


def test_attention() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0]  # type: ignore[no-any-return]

    fed(seeded(Attends), X)


def test_weight_norm_and_spectral_norm() -> None:
    fed(
        seeded(
            lambda: nn.Sequential(
                parametrizations.weight_norm(nn.Linear(4, 6)),
                nn.Tanh(),
                parametrizations.spectral_norm(nn.Linear(6, 2)),
            )
        ),
        X,
    )


def test_batch_norm_in_training_and_evaluation() -> None:
    both = fed(seeded(lambda: nn.Sequential(nn.Conv1d(5, 4, 2), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1))), X)
    for optim in both:
        optim.model.eval()
    torch.testing.assert_close(both[0].model(X), both[1].model(X))


def test_convolutions_whose_channels_are_last() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        return model.to(memory_format=torch.channels_last)

    x = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flat, _ = fed(seeded(make), x.to(memory_format=torch.channels_last))
    weight = flat.model[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_parameters_that_are_not_contiguous() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)).double()
        model[0].weight = nn.Parameter(torch.randn(4, 6, dtype=torch.float64).T)
        model[1].weight = nn.Parameter(torch.randn(2, 12, dtype=torch.float64)[:, ::2])  # and not dense
        return model

    flat, _ = fed(seeded(make), X)
    stored_tensors = {id(p) for p in flat.member.gradients.moved_elsewhere}
    assert id(flat.model[0].weight) in stored_tensors
    assert id(flat.model[1].weight) not in stored_tensors
    assert flat.model[0].weight.stride() == (1, 6)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("updated", [None, "0"])
def test_gradient_checkpointing(reentrant: bool, updated: str | None) -> None:
    class Checkpointed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = x.clone().requires_grad_()
            for part in self:
                x = checkpoint(part, x, use_reentrant=reentrant)
            return x

    fed(
        seeded(lambda: Checkpointed(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3))),
        X,
        updated_modules=updated,
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_model(backend: str) -> None:
    fed(
        seeded(
            lambda: torch.compile(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), backend=backend)
        ),
        X,
    )


@pytest.mark.parametrize("optim_type", ["SGD", "Adagrad"])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_embedding_keeps_its_own_memory(optim_type: str) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4, sparse=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.table(x.abs().mul(3).long().clamp(max=6)))  # type: ignore[no-any-return]

    flat, _ = fed(seeded(Words), X, optim_type, conf={"lr": 0.05, "fused": False})
    assert flat.model.table.weight not in set(flat.member.gradients.moved_elsewhere)


def test_tied_weights_move_once_and_stay_tied() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        return model

    flat, _ = fed(seeded(make), X)
    assert flat.model[0].weight is flat.model[2].weight
    assert len(flat.member.gradients.moved_elsewhere) == 3


def test_weights_tied_by_their_memory_stay_where_they_are() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
        model[2].weight.data = model[0].weight.data
        return model

    flat, _ = fed(seeded(make), X)
    assert torch.equal(flat.model[0].weight, flat.model[2].weight)
    assert len(flat.member.gradients.moved_elsewhere) == 2, "the biases"


def test_a_model_that_is_one_tensor_cut_into_pieces() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)).double()
        vector = nn.utils.parameters_to_vector(model[0].parameters()).detach()
        nn.utils.vector_to_parameters(vector, model[0].parameters())
        return model

    flat, _ = fed(seeded(make), X)
    assert len(flat.member.gradients.moved_elsewhere) == 4


def test_an_eps_of_zero_does_no_harm_between_the_parameters() -> None:
    flat, _ = fed(
        seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))), X, conf={"lr": 0.01, "eps": 0}
    )
    assert all(p.isfinite().all() for p in over(flat))


def test_large_parameters_stay_on_their_own() -> None:
    wide = LARGEST_PACKED // 2
    flat, _ = fed(seeded(lambda: nn.Sequential(nn.Linear(4, wide), nn.Linear(wide, 2))), X)
    assert sorted(p.numel() for p in flat.member.gradients.moved_elsewhere) == [2, wide, LARGEST_PACKED]


# ---- several members ----


def test_R09_two_members_whose_trunk_is_a_third_ones() -> None:
    dicts = []
    for layout in ("flat", "loose"):
        model = Branches()
        parts = {"trunk": ["first", "norm"], "last": ["last"], "side": ["side"]}
        dicts.append(
            OptimSchedulerDict(
                {
                    name: optim_of(model, "AdamW", 0.02, updated_modules=part, layout=layout, accum_grad=i)
                    for i, (name, part) in enumerate(parts.items(), start=1)
                }
            )
        )
    for number, batch in enumerate(draws("s" * 18), start=1):
        for optims in dicts:
            if number % 5 == 0:
                optims["trunk"].model.zero_grad(set_to_none=number % 2 == 0)
            with optims.forward():
                losses = {"loss": optims["trunk"].model(*batch)}
            optims.step(losses)
        agree(*(optims["trunk"].model for optims in dicts))
        if number >= 3:
            assert all(is_flat(optim) for optim in dicts[0].values())
    assert len(buffers_of(dicts[0]["trunk"])) == 1
