"""Gradients as torch leaves them."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD

from optimscheduler.gradients import PerTensor


def three() -> dict[str, nn.Parameter]:
    """One with a gradient, one without, one frozen."""
    parameters = {name: nn.Parameter(torch.zeros(2)) for name in ("has", "lacks", "frozen")}
    parameters["has"].grad = torch.tensor([3.0, 4.0])
    parameters["frozen"].requires_grad_(False)
    return parameters


def loose(parameters: dict[str, nn.Parameter]) -> PerTensor:
    return PerTensor(parameters, SGD(parameters.values(), lr=0.1))


def test_the_parameters_are_in_order() -> None:
    parameters = three()
    found = loose(parameters).parameters
    assert len(found) == 3
    assert all(one is p for one, p in zip(found, parameters.values(), strict=True))


def test_blocks_are_the_gradients_themselves() -> None:
    parameters = three()
    (block,) = loose(parameters).blocks()
    block.mul_(2)
    assert parameters["has"].grad is not None
    assert parameters["has"].grad.tolist() == [6.0, 8.0]


def test_a_sparse_gradient_is_its_values_without_duplicates() -> None:
    parameter = nn.Parameter(torch.zeros(4, 1))
    parameter.grad = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 3]]), [[1.0], [2.0], [5.0]], (4, 1), check_invariants=True
    )
    gradients = loose({"rows": parameter})
    (block,) = gradients.blocks()
    assert block.tolist() == [[3.0], [5.0]]  # row 1 twice: 1 + 2
    block.mul_(2)
    assert gradients.by_name()["rows"].to_dense().flatten().tolist() == [0.0, 6.0, 0.0, 10.0]


def test_R09_missing_names_the_trainable_ones_without_a_gradient() -> None:
    assert loose(three()).missing() == ["lacks"]


def test_by_name_has_those_with_a_gradient() -> None:
    parameters = three()
    assert {name: g is parameters[name].grad for name, g in loose(parameters).by_name().items()} == {
        "has": True
    }


def test_R34_restore_copies_what_was_saved_and_takes_away_what_was_not() -> None:
    parameters = three()
    saved = {"lacks": torch.tensor([1.0, 2.0])}
    loose(parameters).restore(saved)
    assert parameters["has"].grad is None
    assert parameters["lacks"].grad is not None
    parameters["lacks"].grad.mul_(5)
    assert saved["lacks"].tolist() == [1.0, 2.0]


def test_clear_forgets_all() -> None:
    parameters = three()
    loose(parameters).clear()
    assert all(p.grad is None for p in parameters.values())
