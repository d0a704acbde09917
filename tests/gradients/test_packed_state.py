"""R40: the state of packed parameters is shown as torch keeps it, and taken over as others leave it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler
from optimscheduler.gradients import Packed
from tests.cases_flat import Branches, draws, go, is_flat
from tests.cases_models import optim_of

DATA = draws("ssssssss")


def trained(optim_type: str = "AdamW", batches: int = 3, **conf: Any) -> OptimScheduler:
    optim = optim_of(Branches(), optim_type, layout="flat", conf=conf)
    for batch in DATA[:batches]:
        go(optim, batch)
    return optim


def packed_of(optim: OptimScheduler) -> Any:  # Any: private to the layout
    assert isinstance(optim.member.gradients, Packed)
    return optim.member.gradients._state


def weight_of(optim: OptimScheduler) -> nn.Parameter:
    weight: nn.Parameter = optim.model.first.weight
    return weight


def test_R40_an_entry_is_shaped_like_its_parameter_and_is_memory_of_the_buffer() -> None:
    optim = trained()
    (buffer,) = optim.member.gradients._buffers  # type: ignore[attr-defined]
    together = packed_of(optim).inner.state[buffer.leaf]["exp_avg"]
    for parameter in optim.model.parameters():
        shown = optim.optimizer.state[parameter]["exp_avg"]
        assert shown.shape == parameter.shape
        assert shown.untyped_storage().data_ptr() == together.untyped_storage().data_ptr()


def test_R40_counters_follow_the_updates_while_somebody_holds_them() -> None:
    optim = trained()
    step = optim.optimizer.state[weight_of(optim)]["step"]
    assert float(step) == 3
    go(optim, DATA[3])
    assert float(step) == 4


def test_what_nobody_holds_is_forgotten_at_the_next_update() -> None:
    optim = trained()
    assert len(optim.optimizer.state) == 8
    go(optim, DATA[3])
    go(optim, DATA[4])
    packed = packed_of(optim)
    assert not packed._shown.is_open
    assert not any(packed._rows.values())
    assert is_flat(optim)


def test_R40_one_look_between_two_updates_changes_nothing() -> None:
    quiet, looked_at = trained(), trained()
    for batch in DATA[3:]:
        looked_at.optimizer.state_dict()
        go(quiet, batch)
        go(looked_at, batch)
    for one, other in zip(quiet.model.parameters(), looked_at.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_R40_what_is_written_in_place_stays_where_it_lies() -> None:
    optim = trained()
    held = optim.optimizer.state[weight_of(optim)]
    held["exp_avg"].zero_()
    go(optim, DATA[3])
    assert is_flat(optim)
    assert held["exp_avg"] is optim.optimizer.state[weight_of(optim)]["exp_avg"]
    assert bool(held["exp_avg"].any())  # the update was made with it


def test_R40_a_state_that_was_emptied_begins_anew() -> None:
    optim = trained()
    optim.optimizer.state.clear()
    go(optim, DATA[3])
    assert {float(state["step"]) for state in optim.optimizer.state.values()} == {1.0}
    assert is_flat(optim)


def test_R40_a_parameter_whose_counter_differs_has_a_state_of_its_own() -> None:
    optim = trained()
    optim.optimizer.state[weight_of(optim)]["step"].fill_(10.0)
    go(optim, DATA[3])
    steps = [float(optim.optimizer.state[p]["step"]) for p in optim.model.parameters()]
    assert sorted(steps) == [4.0] * 7 + [11.0]
    assert all(p is not weight_of(optim) for p in optim.member.gradients.moved_elsewhere)


def test_what_others_keep_there_for_tensors_of_their_own_stays() -> None:
    optim, tensor = trained(), torch.zeros(3)
    optim.optimizer.state[tensor] = {"mine": 7}
    for batch in DATA[3:6]:
        go(optim, batch)
    assert optim.optimizer.state[tensor] == {"mine": 7}


def test_R40_an_odd_shape_of_an_entry_is_left_to_torch() -> None:
    optim = trained("RMSprop")
    optim.optimizer.state[weight_of(optim)]["square_avg"] = torch.ones(1, dtype=torch.float64)
    with pytest.raises(RuntimeError):
        go(optim, DATA[3])  # as torch would: the shapes do not fit


@pytest.mark.parametrize("hold", ["optimizer", "state", "tensor"])
def test_R40_it_can_be_read_when_the_object_is_gone(hold: str) -> None:
    optim = trained()
    weight = weight_of(optim)
    kept: Any = {
        "optimizer": optim.optimizer,
        "state": optim.optimizer.state,
        "tensor": optim.optimizer.state[weight]["exp_avg"],
    }[hold]
    del optim
    state = kept.state if hold == "optimizer" else kept
    found: Tensor = state if hold == "tensor" else state[weight]["exp_avg"]
    assert found.shape == weight.shape
    assert bool(found.any())
