"""R44: parameters and modules that others replace in mid-run are followed, or named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from optimscheduler import CheckpointError, OptimScheduler, OptimSchedulerDict, ParameterError
from tests.cases_models import TwoParts, a_model, batches, optim_of, take

LAYOUTS = pytest.mark.parametrize("layout", ["auto", "loose"])
DATA = batches(8)


def replace(model: nn.Sequential, optim: OptimScheduler, at: int = 3) -> nn.Parameter:
    """The bias of the last layer, in model and optimizer."""
    new = nn.Parameter(torch.ones(2))
    group = optim.optimizer.param_groups[0]["params"]
    group[next(i for i, p in enumerate(group) if p is model[at].bias)] = new
    optim.optimizer.state.pop(model[at].bias, None)
    model[at].bias = new
    return new


@LAYOUTS
@pytest.mark.parametrize("accum_grad", [1, 2])
def test_R44_a_replaced_parameter_is_stepped_cleared_and_saved(layout: str, accum_grad: int) -> None:
    model = a_model()
    optim = optim_of(model, "AdamW", layout=layout, accum_grad=accum_grad)
    for batch in DATA[:3]:
        take(optim, batch)
    new = replace(model, optim)
    for batch in DATA[3:6]:
        take(optim, batch)
    assert bool((new != 1).all())
    assert new.grad is None
    assert "3.bias" in optim.state_dict()["optimizer"]["present"]
    assert any(p is new for p in optim.owned.by_name.values())


@LAYOUTS
def test_R44_a_parameter_that_is_not_the_models_is_refused_before_anything_moves(layout: str) -> None:
    model = a_model()
    optim = optim_of(model, "AdamW", layout=layout)
    take(optim, DATA[0])
    before = [p.detach().clone() for p in model.parameters()]
    optim.optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.ones(7))
    message = r"param_groups\[0\] has a parameter of shape \(7,\) that is not the model's; replace it in the"
    with pytest.raises(ParameterError, match=message):
        take(optim, DATA[1])
    for p, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, was)


@LAYOUTS
def test_R44_a_group_that_is_added_is_refused(layout: str) -> None:
    optim = optim_of(a_model(), "AdamW", layout=layout)
    take(optim, DATA[0])
    optim.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ParameterError, match="has 2 parameter groups and was built with 1"):
        take(optim, DATA[1])


@LAYOUTS
def test_R44_replaced_in_one_of_two_members(layout: str) -> None:
    model = TwoParts()
    members = {
        name: optim_of(model, "AdamW", layout=layout, updated_modules=name, optim_loss=loss)
        for name, loss in {"encoder": "loss", "decoder": "other"}.items()
    }
    optims = OptimSchedulerDict(members)

    def step() -> None:
        with optims.forward():
            losses = model(torch.ones(2, 3))
        optims.step(losses)

    step()
    new = nn.Parameter(torch.ones(3))
    group = members["encoder"].optimizer.param_groups[0]["params"]
    group[next(i for i, p in enumerate(group) if p is model.encoder[0].bias)] = new
    model.encoder[0].bias = new
    step()
    assert bool((new != 1).all())
    assert new.grad is None


@LAYOUTS
def test_R44_a_module_that_was_replaced_in_the_model_alone_is_named(
    layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = a_model()
    optim = optim_of(model, "AdamW", layout=layout)
    take(optim, DATA[0])
    model[3] = nn.Linear(6, 2)
    for batch in DATA[1:4]:
        take(optim, batch)
    assert caplog.text.count("came into the model later are in no optimizer") == 1
    assert "and do not train: 3.weight, 3.bias. Append them: optim.optimizer.param_groups" in caplog.text


@LAYOUTS
def test_R44_a_module_that_was_added_is_named_within_twice_as_many_updates(
    layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = a_model()
    optim = optim_of(model, "AdamW", layout=layout)
    for batch in DATA[:3]:
        take(optim, batch)
    model.append(nn.Linear(2, 2))
    for batch in DATA[3:]:
        take(optim, batch)
    assert "do not train: 4.weight, 4.bias" in caplog.text


@LAYOUTS
def test_R44_weight_norm_removed_in_mid_run_is_said(layout: str, caplog: pytest.LogCaptureFixture) -> None:
    model = a_model()
    weight_norm(model[3])
    optim = optim_of(model, "AdamW", layout=layout)
    take(optim, DATA[0])
    remove_parametrizations(model[3], "weight")
    for batch in DATA[1:4]:
        take(optim, batch)
    assert "do not train: 3.weight." in caplog.text


@LAYOUTS
def test_R44_what_was_never_to_be_optimised_is_no_stranger(
    layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = a_model()
    optim = optim_of(model, "AdamW", layout=layout, updated_modules="3", exclude=["3.bias"])
    for batch in DATA:
        take(optim, batch)
    assert "came into the model" not in caplog.text


def test_R35_state_of_a_parameter_that_is_gone_is_named_when_it_is_saved() -> None:
    optim = optim_of(a_model(), "AdamW", layout="loose")
    take(optim, DATA[0])
    optim.optimizer.state[torch.ones(1)] = {"step": torch.ones(())}
    with pytest.raises(CheckpointError, match=r"write optim\.optimizer\.state\.pop\(old, None\)"):
        optim.state_dict()
