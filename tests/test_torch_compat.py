"""R47: a private name of torch that is missing makes things slower, never wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optimscheduler import _torch_compat as compat
from tests.cases_models import TwoParts, optim_of


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


def test_R47_tensors_are_copied_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        targets, sources = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 2.0)]
        compat.copy_each(targets, sources)
        assert all(torch.equal(a, b) for a, b in zip(targets, sources, strict=True))
        monkeypatch.delattr(torch, "_foreach_copy_", raising=False)


def test_R47_a_loss_scale_follows_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]

    def scales(start: float) -> list[tuple[float, int]]:
        scale, tracker, seen = torch.tensor(start), torch.tensor(0, dtype=torch.int32), []
        for outcome in outcomes:
            compat.update_scale(scale, tracker, torch.tensor(float(outcome)), 2.0, 0.5, 3)
            seen.append((float(scale), int(tracker)))
        return seen

    for start in (2.0**16, 2.0**126):  # the second would grow beyond float32
        with monkeypatch.context() as without:
            expected = scales(start)
            without.delattr(torch, "_amp_update_scale_")
            assert scales(start) == expected


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
