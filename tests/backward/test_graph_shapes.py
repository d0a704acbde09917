"""R42, R47: graphs are walked when one of their shape is new, and now and then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from optimscheduler._torch_compat import graph_age
from optimscheduler.backward import graph_shapes as module
from optimscheduler.backward.graph_shapes import GraphShapes


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Roots of the graphs that were walked."""
    found: list[object] = []
    nodes = module._nodes
    monkeypatch.setattr(module, "_nodes", lambda root: found.append(root) or nodes(root))
    return found


def look(sight: GraphShapes, loss: Callable[[], Tensor], owned: nn.Module, told: bool = True) -> None:
    since = graph_age() if told else None
    sight.look(loss().grad_fn, since, {id(p) for p in owned.parameters()})


def test_R42_a_graph_of_known_shape_is_not_walked_again(walks: list[object]) -> None:
    model, sight, x = nn.Linear(2, 1), GraphShapes(), torch.ones(1, 2)
    for _ in range(5):
        look(sight, lambda: model(x).sum(), model)
    assert len(walks) == 1
    look(sight, lambda: (2 * model(x)).sum(), model)  # one node more
    look(sight, lambda: model(x).mean(), model)  # another root
    assert len(walks) == 3
    look(sight, lambda: (2 * model(x)).sum(), model)
    assert len(walks) == 3


def test_R42_a_parameter_that_is_thawed_deep_in_a_graph_is_seen_within_16(walks: list[object]) -> None:
    model, x, sight = nn.Linear(2, 2), torch.ones(1, 2), GraphShapes()
    foreign = nn.Parameter(torch.ones(2), requires_grad=False)

    def loss() -> Tensor:
        return (foreign * model(x)).tanh().tanh().sum()

    look(sight, loss, model)
    assert sight.strays == []
    foreign.requires_grad_(True)  # the graph has as many nodes as before
    for _ in range(15):
        look(sight, loss, model)
        assert sight.strays == []
    look(sight, loss, model)
    assert sight.strays[0] is foreign
    assert len(walks) == 2


def test_R42_of_many_shapes_not_all_are_remembered(
    walks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 4)
    model, sight, x = nn.Linear(2, 2), GraphShapes(), torch.ones(1, 2)
    for length in range(1, 12):
        look(sight, lambda length=length: sum(model(x).sum() for _ in range(length)), model)  # type: ignore[misc]
        assert len(sight._known) <= 4
    assert len(walks) == 11


def test_R42_strays_are_not_kept_alive() -> None:
    model, foreign, sight = nn.Linear(2, 2), nn.Linear(2, 1), GraphShapes()
    sight.look(foreign(model(torch.ones(1, 2))).sum().grad_fn, None, {id(p) for p in model.parameters()})
    assert len(sight.strays) == 2
    del foreign
    assert sight.strays == []


@pytest.mark.parametrize("told", [False, True])
def test_R47_without_the_age_of_a_graph_every_one_is_walked(
    walks: list[object], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sight, x = nn.Linear(2, 1), GraphShapes(), torch.ones(1, 2)
    if told:
        monkeypatch.delattr(torch._C._autograd, "_get_sequence_nr")
    for _ in range(3):
        look(sight, lambda: model(x).sum(), model, told)
    assert len(walks) == 3


def test_R47_where_leaves_are_hidden_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "leaf_of", lambda node: None)
    model, sight = nn.Linear(2, 1), GraphShapes()
    look(sight, lambda: model(torch.ones(1, 2)).sum(), model)
    assert sight.blind


def test_R42_a_loss_without_a_graph_has_nothing_to_see() -> None:
    sight = GraphShapes()
    sight.look(None, 0, set())
    assert (sight.strays, sight.reentrant, sight.blind) == ([], False, False)


def test_R42_what_other_code_does_between_steps_costs_a_walk_once(walks: list[object]) -> None:
    model, sight, x = nn.Linear(2, 1), GraphShapes(), torch.ones(1, 2)
    for i in range(30):
        since = graph_age()
        for _ in range(i % 3):
            (model(x) * 2).sum()  # another graph, made since the last step
        sight.look(model(x).sum().grad_fn, since, {id(p) for p in model.parameters()})
    assert len(walks) == 3
