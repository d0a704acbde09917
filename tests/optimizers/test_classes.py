"""R25, R34: every class of torch and small stand-ins, trained, saved and resumed as in a plain loop."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.optim import Optimizer

from tests.optimizers.classes import OF_STRANGERS, OF_TORCH
from tests.optimizers.prove import Case, outcome
from tests.optimizers.table import cell, page_rows


@pytest.mark.parametrize("case", OF_TORCH, ids=lambda case: case.name)
def test_R34_a_class_of_torch_does_what_the_page_says(case: Case) -> None:
    assert cell(case, outcome(case)) == page_rows()[case.name, "torch"]


@pytest.mark.parametrize("case", OF_STRANGERS, ids=lambda case: case.name)
def test_R34_a_class_that_keeps_its_state_elsewhere_works(case: Case) -> None:
    assert outcome(case) == "works"


def test_no_class_of_torch_is_left_out() -> None:
    found = [c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, Optimizer)]
    named = {case.optim_type for case in OF_TORCH}
    assert {c.__name__ for c in found} - named == {"Optimizer"}


class Wrong(torch.optim.SGD):
    """Moves twice as far when it is not stepped by a plain loop."""

    def __init__(self, params: object, lr: float = 0.1, plain: bool = False) -> None:
        super().__init__(params, lr=lr if plain else 2 * lr)  # type: ignore[arg-type]  # parameters


def test_a_difference_is_found() -> None:
    made = iter([True, True])
    case = Case(
        name="wrong",
        package="stand-in",
        optim_type=None,
        build=lambda model: Wrong(model.parameters(), plain=next(made, False)),
    )
    assert outcome(case).startswith("differs with grad_clip=None, layouts ('auto', 'auto')")
