"""R47: a private name of torch that is missing makes things slower, never wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import profiler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim import optimizer as optimizer_module
from torch.optim.lr_scheduler import StepLR

from optimscheduler import _torch_compat as compat
from tests.cases_flat import Branches, draws, go
from tests.cases_models import TwoParts, assert_same, optim_of, weights

NAMES: list[tuple[Any, str]] = [
    (torch._C, "_storage_Use_Count"),
    (torch, "_foreach_mul_"),
    (torch, "_foreach_mul"),
    (torch, "_foreach_copy_"),
    (torch, "_foreach_norm"),
    (torch, "_amp_update_scale_"),
    (profiler, "_is_profiler_enabled"),
]
IDS = [name for _, name in NAMES]


def trained(layout: str, **arguments: Any) -> dict[str, Tensor]:
    optim = optim_of(Branches(), "AdamW", layout=layout, grad_clip=0.1, accum_grad=2, **arguments)
    for batch in draws("ss-sss--ss"):
        go(optim, batch)
    return weights(optim.model)


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize(("owner", "name"), NAMES, ids=IDS)
def test_R47_without_a_private_name_a_training_is_the_same(
    owner: Any, name: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(layout, use_amp="fp16")
    monkeypatch.delattr(owner, name)
    for key, value in trained(layout, use_amp="fp16").items():
        torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-9)


def test_R47_without_a_count_of_who_looks_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """`seen` goes on showing the weight; were that packed, it would show the old memory."""
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    model = Branches()
    seen = model.first.weight.detach()
    optim = optim_of(model, "AdamW", layout="flat")
    go(optim, draws("s")[0])
    assert not optim.member.gradients.moved_elsewhere
    assert torch.equal(seen, model.first.weight)


def stepped(optimizer: Optimizer, times: int = 3) -> Optimizer:
    for i in range(times):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.arange(1.0, 1 + p.numel(), dtype=p.dtype).reshape(p.shape) * (i + 1)
        optimizer.step()
    return optimizer


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]


# ---- optimizers ----


def test_R47_whoever_cannot_be_asked_for_hooks_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = SGD(parameters(), lr=0.1)
    assert not compat.has_step_hooks(optimizer)
    for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        with monkeypatch.context() as patched:
            patched.delattr(optimizer_module, name)
            assert compat.has_step_hooks(optimizer)
    for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        with monkeypatch.context() as patched:
            patched.delattr(optimizer, name)
            assert compat.has_step_hooks(optimizer)


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_hooks_are_found_while_they_are_there(register: str) -> None:
    optimizer = SGD(parameters(), lr=0.1)
    handle = getattr(optimizer, register)(lambda *_: None)
    assert compat.has_step_hooks(optimizer)
    assert compat.bare_step(optimizer) is None
    handle.remove()
    assert not compat.has_step_hooks(optimizer)


def test_a_scheduler_alone_is_told_apart_from_others_who_replace_the_step() -> None:
    optimizer = SGD(parameters(), lr=0.1)
    assert not compat.is_scheduled(optimizer)
    StepLR(optimizer, 1)
    assert compat.is_scheduled(optimizer)
    inner = optimizer.step
    optimizer.step = lambda *_: inner()  # type: ignore[method-assign]
    assert not compat.is_scheduled(optimizer)
    of_somebody = SGD(parameters(), lr=0.1)
    of_somebody.step = lambda *_: None  # type: ignore[method-assign]
    assert not compat.is_scheduled(of_somebody)


def test_a_step_is_bare_only_where_nobody_needs_what_torch_wraps_around_it() -> None:
    class Own(SGD):
        pass

    with torch.no_grad():
        assert compat.bare_step(SGD(parameters(), lr=0.1)) is not None
        assert compat.bare_step(Own(parameters(), lr=0.1)) is None
        with profiler.profile():
            assert compat.bare_step(SGD(parameters(), lr=0.1)) is None
    assert compat.bare_step(SGD(parameters(), lr=0.1)) is None


# ---- the fused step ----

SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True, "weight_decay": 0.1},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_the_fused_step_is_that_of_torch(
    kind: type[Optimizer], settings: dict[str, Any], scale: float | None
) -> None:
    both = [stepped(kind(parameters(), lr=0.1, fused=True, **settings)) for _ in range(2)]
    for p, q in zip(*(one.param_groups[0]["params"] for one in both), strict=True):
        p.grad, q.grad = torch.full_like(p, 3.0), torch.full_like(p, 3.0)
    divisor = None if scale is None else torch.tensor(scale)
    with torch.no_grad():
        assert compat.step_fused_adam(both[0], divisor, None)
        if divisor is not None:
            both[1].grad_scale = divisor  # type: ignore[attr-defined]  # torch's own protocol
        both[1].step()
    assert_same(both[0].state_dict(), both[1].state_dict())
    assert_same(both[0].param_groups[0]["params"], both[1].param_groups[0]["params"])


def test_the_fused_step_obeys_a_refusal() -> None:
    optimizer = stepped(AdamW(parameters(), lr=0.1, fused=True))
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    with torch.no_grad():
        assert compat.step_fused_adam(optimizer, torch.tensor(2.0), torch.tensor(1.0))
    assert_same([p.detach() for p in optimizer.param_groups[0]["params"]], before)
    assert [float(state["step"]) for state in optimizer.state.values()] == [3.0, 3.0]


def first_step(optimizer: Optimizer) -> None:
    optimizer.state.clear()


def a_rate_that_is_a_tensor(optimizer: Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1)


def two_dtypes(optimizer: Optimizer) -> None:
    double = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    double.grad = torch.ones_like(double)
    first = parameters_of(optimizer)[0]
    optimizer.state[double] = {key: torch.zeros(()) for key in optimizer.state[first]}
    parameters_of(optimizer).append(double)


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    found: list[nn.Parameter] = optimizer.param_groups[0]["params"]
    return found


def a_key_of_another_version(optimizer: Optimizer) -> None:
    del optimizer.param_groups[0]["decoupled_weight_decay"]


ODD = [first_step, a_rate_that_is_a_tensor, two_dtypes, a_key_of_another_version]


@pytest.mark.parametrize("do", ODD, ids=lambda do: do.__name__)
def test_what_only_torch_prepares_is_left_to_its_step(do: Callable[[Optimizer], None]) -> None:
    optimizer = stepped(AdamW(parameters(), lr=0.1, fused=True))
    do(optimizer)
    before = [p.detach().clone() for p in parameters_of(optimizer)]
    with torch.no_grad():
        assert not compat.step_fused_adam(optimizer, None, None)
        assert not compat.step_fused_adam(SGD(parameters(), lr=0.1, fused=True), None, None)
    assert_same([p.detach() for p in parameters_of(optimizer)], before)


# ---- the rest ----


@pytest.mark.parametrize("found", [0.0, 1.0])
@pytest.mark.parametrize("tracker", [0, 2])
@pytest.mark.parametrize("scale", [8.0, 3e38])
def test_R47_the_rule_of_a_loss_scale_by_hand_is_torchs(
    scale: float, tracker: int, found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after() -> tuple[float, int]:
        value, count = torch.tensor(scale), torch.tensor(tracker, dtype=torch.int32)
        compat.update_scale_(value, count, torch.tensor(found), 2.0, 0.5, 3)
        return float(value), int(count)

    expected = after()
    monkeypatch.delattr(torch, "_amp_update_scale_")
    assert after() == expected


def test_R47_buffers_that_are_not_saved_are_found_without_torchs_list() -> None:
    module = nn.BatchNorm1d(2)
    module.register_buffer("scratch", torch.zeros(2), persistent=False)
    assert compat.unsaved_buffers(module) == {"scratch"}

    class Without:
        named_buffers, state_dict = module.named_buffers, module.state_dict

    assert compat.unsaved_buffers(Without()) == {"scratch"}  # type: ignore[arg-type]


def test_R47_without_versions_every_update_takes_the_state_over(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained("flat")
    monkeypatch.setattr("optimscheduler.gradients.packed_state.version_of", lambda _: None)
    assert_same(trained("flat"), expected)


# ---- graphs and wrappers ----


def test_R47_the_age_of_graphs_grows_with_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(1, requires_grad=True)
    since = compat.graph_age()
    y = 2 * x + 1
    assert since is not None
    assert compat.graph_age() == since + 2
    assert compat.graph_age(y.grad_fn) == since + 1
    monkeypatch.delattr(torch._C._autograd, "_get_sequence_nr")
    assert compat.graph_age() is None
    assert compat.graph_age(cast(Any, SimpleNamespace())) is None


def test_R47_a_leaf_that_torch_hides_is_unknown() -> None:
    x = nn.Parameter(torch.ones(1))
    node = (2 * x).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
    assert compat.leaf_of(node) is x
    assert compat.leaf_of(cast(Any, SimpleNamespace())) is None


def test_R47_a_running_wrapper_is_not_seen_where_torch_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DistributedDataParallel, "_active_ddp_module", object())
    assert compat.inside_ddp()
    monkeypatch.setattr(DistributedDataParallel, "_active_ddp_module", None)
    assert not compat.inside_ddp()
    monkeypatch.delattr(DistributedDataParallel, "_active_ddp_module")
    assert not compat.inside_ddp()


def test_R47_wrappers_are_quiet_by_the_names_that_they_have() -> None:
    full = {
        "require_backward_grad_sync": True,
        "require_forward_param_sync": True,
        "_static_graph_delay_allreduce_enqueued": False,
    }
    old = {"require_backward_grad_sync": True}
    wrapped = cast(Any, [SimpleNamespace(**full), SimpleNamespace(**old)])
    with compat.quiet(wrapped):
        assert list(vars(wrapped[0]).values()) == [False, False, True]
        assert vars(wrapped[1]) == {"require_backward_grad_sync": False}
    assert [vars(each) for each in wrapped] == [full, old]
    with compat.quiet(wrapped, buffers=False):
        assert list(vars(wrapped[0]).values()) == [False, True, True]


def test_R47_a_static_graph_is_awaited_where_torch_does_not_say() -> None:
    awaits = lambda **settings: compat.awaits_static_graph(cast(Any, SimpleNamespace(**settings)))  # noqa: E731
    assert awaits(static_graph=True)
    assert awaits(static_graph=True, _static_graph_delay_allreduce_enqueued=False)
    assert not awaits(static_graph=True, _static_graph_delay_allreduce_enqueued=True)
    assert not awaits(static_graph=False)


def test_R47_a_sharded_part_scatters_where_torch_does_not_say() -> None:
    group = SimpleNamespace(reduce_grads=False)
    state = SimpleNamespace(_fsdp_param_groups=[group])
    assert not compat.scatters_gradients(SimpleNamespace(_get_fsdp_state=lambda: state))
    assert compat.scatters_gradients(SimpleNamespace())


def test_R47_a_step_without_any_of_them_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[torch.Tensor]:
        optim = optim_of(TwoParts(), updated_modules="encoder")
        for _ in range(3):
            with optim.forward():
                losses = optim.model(torch.ones(2, 3))
            optim.step(losses)
        return [p.detach().clone() for p in optim.model.parameters()]

    expected = trained()
    monkeypatch.delattr(torch._C._autograd, "_get_sequence_nr")
    monkeypatch.delattr(DistributedDataParallel, "_active_ddp_module")
    assert all(torch.equal(a, b) for a, b in zip(trained(), expected, strict=True))


def test_every_optimizer_of_torch_is_known_as_one() -> None:
    classes = [cls for cls in vars(torch.optim).values() if isinstance(cls, type) and cls is not Optimizer]
    assert "Muon" in [cls.__name__ for cls in classes]  # whose module is torch.optim itself
    assert all(map(compat.is_of_torch, classes))
    assert not compat.is_of_torch(type("Adam", (torch.optim.Adam,), {"__module__": "torch.optimal"}))
