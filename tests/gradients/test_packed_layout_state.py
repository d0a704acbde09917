"""R12, R34, R36: states of either layout go into the other, and a stale graph is found in both."""

from __future__ import annotations

import copy
import gc
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import CheckpointError, GraphError, OptimScheduler
from optimscheduler.gradients.packable import SCALARS
from tests.cases_flat import Branches, Draw, agree, buffers_of, draws, go, is_flat
from tests.cases_models import assert_same, optim_of, stored, weights

F64 = torch.float64
LAYOUTS = [*itertools.product(["flat", "loose"], repeat=2)]
OPTIMIZERS = sorted(c.__name__ for c in SCALARS)
CAST = ("ASGD", "NAdam")
"""Torch casts to the weights' float64 what these keep once per tensor in float32, whenever it loads them."""


def an_optim(layout: str, optim_type: str = "AdamW", seed: int = 0, **arguments: Any) -> OptimScheduler:
    decay = {"weight_decay": 0.1} if optim_type == "AdamW" else {}
    momentum = {"momentum": 0.9} if optim_type in ("SGD", "RMSprop") else {}
    conf = {"lr": 0.02, **decay, **momentum, **arguments.pop("conf", {})}
    model = Branches(seed=seed)
    return optim_of(model, optim_type, layout=layout, conf=conf, **{"grad_clip": 0.5, **arguments})


def train(optim: OptimScheduler, data: list[Draw]) -> OptimScheduler:
    for batch in data:
        go(optim, batch)
    return optim


def resumed(optim: OptimScheduler, layout: str, **arguments: Any) -> OptimScheduler:
    """A new object over a model with its weights and its state, both out of a file."""
    state = stored({"model": optim.model.state_dict(), "optim": optim.state_dict()})
    fresh = an_optim(layout, seed=7, **arguments)
    fresh.model.load_state_dict(state["model"])
    fresh.load_state_dict(state["optim"])
    return fresh


def alike(one: OptimScheduler, other: OptimScheduler, rel: float) -> None:
    """The states of their optimizers, whatever the dtypes."""
    states = [optim.state_dict()["optimizer"]["state"] for optim in (one, other)]
    torch.testing.assert_close(*states, rtol=rel, atol=rel, check_dtype=False)


# ---- from one object to another ----


@pytest.mark.parametrize("sides", ["ssssssssss", "ss--s-s-ss"], ids=["always", "now and then"])
@pytest.mark.parametrize("done", [4, 5], ids=["between", "mid"])
@pytest.mark.parametrize(("there", "here"), LAYOUTS)
@pytest.mark.parametrize("optim_type", OPTIMIZERS)
def test_R36_either_layout_goes_on_from_the_others_state(
    optim_type: str, there: str, here: str, done: int, sides: str
) -> None:
    """`now and then`: the steps of Adam differ between parameters that would share a buffer."""
    data = draws(sides)
    first = train(an_optim(there, optim_type, accum_grad=2), data[:done])
    assert is_flat(first) is (there == "flat")
    second = resumed(first, here, optim_type=optim_type, accum_grad=2)
    assert_same(weights(second.model), weights(first.model))
    alike(first, second, 0.0)
    rel = 1e-6 if optim_type in CAST else 1e-9
    for batch in data[done:]:
        go(first, batch)
        go(second, batch)
        agree(first.model, second.model, rel)
    assert is_flat(second) is (here == "flat")
    alike(first, second, rel)


@pytest.mark.parametrize(("there", "here"), LAYOUTS)
def test_R36_a_state_loaded_into_an_object_in_mid_run(there: str, here: str) -> None:
    """Its own state, open window and layout go; the weights are the user's business."""
    data = draws("ss--s-sssssss")
    first = train(an_optim(there, accum_grad=3), data[:7])
    second = train(an_optim(here, seed=4, accum_grad=3), data[5:])
    assert (is_flat(first), is_flat(second)) == (there == "flat", here == "flat")
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(stored(first.state_dict()))
    for batch in data[7:]:
        go(first, batch)
        go(second, batch)
        agree(first.model, second.model)
    assert is_flat(second) is (here == "flat")


@pytest.mark.parametrize("done", [4, 5], ids=["between", "mid"])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "RMSprop"])
def test_R36_a_refused_state_changes_nothing(optim_type: str, done: int) -> None:
    optim = train(an_optim("flat", optim_type, accum_grad=2), draws("ssssssss")[:done])
    assert is_flat(optim)
    before = copy.deepcopy((weights(optim.model), optim.state_dict()))
    with pytest.raises(CheckpointError):
        optim.load_state_dict(an_optim("flat", optim_type, accum_grad=3).state_dict())
    assert_same((weights(optim.model), optim.state_dict()), before)
    assert is_flat(optim)


@pytest.mark.parametrize("layout", ["flat", "loose"])
def test_a_state_is_plain_small_and_not_the_optimizers_own(layout: str) -> None:
    """It holds no leaf, and its file no gaps and nothing twice."""
    optim = train(an_optim(layout), draws("ssss"))
    assert is_flat(optim) is (layout == "flat")
    state = optim.state_dict()["optimizer"]["state"]
    assert list(state) == [name for name, _ in optim.model.named_parameters()]
    for name, p in optim.model.named_parameters():
        assert {key: value.shape for key, value in state[name].items()} == {
            "step": torch.Size([]),
            "exp_avg": p.shape,
            "exp_avg_sq": p.shape,
        }


class Scaled(nn.Module):
    """With a parameter of no dimensions, as the temperature of a contrastive loss is."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.to(dtype)

    def forward(self, x: Tensor, _: bool) -> Tensor:
        return (self.layer(x.to(self.scale.dtype)) * self.scale - 1).square().mean()


@pytest.mark.parametrize(("there", "here"), LAYOUTS)
@pytest.mark.parametrize("optim_type", OPTIMIZERS)
def test_R36_a_parameter_of_no_dimensions_has_a_state_of_its_own(
    optim_type: str, there: str, here: str
) -> None:
    data, optims = draws("s" * 8), []
    for layout in (there, here):
        conf = {"lr": 0.02, **({"momentum": 0.9} if optim_type in ("SGD", "RMSprop") else {})}
        optims.append(optim_of(Scaled(F64), optim_type, layout=layout, conf=conf))
    first, second = optims
    train(first, data[:4])
    assert is_flat(first) is (there == "flat")
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(stored(first.state_dict()))
    for batch in data[4:]:
        for optim in optims:
            go(optim, batch)
        agree(first.model, second.model)
    assert is_flat(second) is (here == "flat")
    assert len(second.member.gradients.moved_elsewhere) == (3 if here == "flat" else 0)


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("then", [F64, torch.bfloat16])
def test_R36_a_state_loaded_over_weights_of_another_dtype(
    then: torch.dtype, fused: bool, layout: str
) -> None:
    """The moments get the weights' dtype, as torch gives it to them, also where they have no dimensions."""
    conf = {"lr": 0.02, "fused": fused}
    first = train(optim_of(Scaled(torch.float32), "Adam", layout=layout, conf=conf), draws("ssss"))
    second = optim_of(Scaled(then), "Adam", layout=layout, conf=conf)
    second.load_state_dict(stored(first.state_dict()))
    train(second, draws("ss"))
    assert is_flat(second) is (layout == "flat")
    for name, state in second.state_dict()["optimizer"]["state"].items():
        assert {key: value.dtype for key, value in state.items()} == {
            "step": torch.float32,
            "exp_avg": then,
            "exp_avg_sq": then,
        }, name


# ---- plain optimizers of torch ----


def plainly(model: Branches, optimizer: torch.optim.Optimizer, data: list[Draw]) -> None:
    for batch in data:
        optimizer.zero_grad()
        model(*batch).backward()
        optimizer.step()


@pytest.mark.parametrize("sides", ["ssssssss", "s-s---ss"], ids=["always", "now and then"])
@pytest.mark.parametrize("by", ["load_state_dict", "optimizer"])
@pytest.mark.parametrize("optim_type", OPTIMIZERS)
def test_R36_a_plain_optimizers_state_is_taken(optim_type: str, by: str, sides: str) -> None:
    data, model = draws(sides), Branches(seed=3)
    ours = train(an_optim("flat", optim_type, grad_clip=None), draws("ss"))
    assert is_flat(ours)
    conf = {key: ours.optimizer.param_groups[0][key] for key in ("lr", "weight_decay", "momentum")
            if key in ours.optimizer.param_groups[0]}  # fmt: skip
    theirs = getattr(torch.optim, optim_type)(model.parameters(), **conf)
    plainly(model, theirs, data[:4])
    ours.model.load_state_dict(model.state_dict())
    state = stored(theirs.state_dict())
    if by == "optimizer":
        ours.optimizer.load_state_dict(state)
    else:
        ours.load_state_dict(state)
    for batch in data[4:]:
        plainly(model, theirs, [batch])
        go(ours, batch)
        agree(ours.model, model, 1e-6 if optim_type in CAST else 1e-10)
    assert is_flat(ours)


@pytest.mark.parametrize("sides", ["ssssssss", "s-s---ss"], ids=["always", "now and then"])
@pytest.mark.parametrize("optim_type", OPTIMIZERS)
def test_R36_a_plain_optimizer_takes_ours(optim_type: str, sides: str) -> None:
    data, model = draws(sides), Branches(seed=3)
    ours = train(an_optim("flat", optim_type, grad_clip=None), data[:4])
    assert is_flat(ours)
    theirs = getattr(torch.optim, optim_type)(model.parameters(), lr=0.7)
    model.load_state_dict(ours.model.state_dict())
    theirs.load_state_dict(stored(ours.optimizer.state_dict()))
    assert theirs.param_groups[0]["lr"] == 0.02
    for batch in data[4:]:
        plainly(model, theirs, [batch])
        go(ours, batch)
        agree(ours.model, model, 1e-6 if optim_type in CAST else 1e-10)
    assert is_flat(ours)


@pytest.mark.parametrize("rules", [None, [{"ndim": "<2", "weight_decay": 0.0}]], ids=["one group", "two"])
@pytest.mark.parametrize("done", [0, 4, 5])
def test_R36_the_optimizers_own_state_is_that_of_a_plain_one(done: int, rules: Any) -> None:
    """Indices, groups, order of the entries, kinds of values."""
    states = []
    for layout in ("flat", "loose"):
        optim = train(
            an_optim(layout, accum_grad=2, param_groups=rules, conf={"fused": False}), draws("sssss")[:done]
        )
        assert is_flat(optim) is (layout == "flat")
        states.append(optim.optimizer.state_dict())
    flat, loose = states
    assert flat["param_groups"] == loose["param_groups"]
    assert list(flat["state"]) == list(loose["state"])
    torch.testing.assert_close(flat["state"], loose["state"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", ["flat", "loose"])
def test_R36_no_two_entries_of_a_state_are_one_tensor(layout: str) -> None:
    """Torch keeps `step` as it is loaded, and counts it up once for each parameter."""
    optim = train(an_optim(layout), draws("ss"))
    assert is_flat(optim) is (layout == "flat")
    for state in (optim.optimizer.state_dict()["state"], optim.state_dict()["optimizer"]["state"]):
        places = [value.data_ptr() for entry in state.values() for value in entry.values()]
        assert len(places) == 3 * 8
        assert len(set(places)) == len(places)


def test_R36_a_flat_optimizers_own_state_loaded_by_a_loose_one() -> None:
    data = draws("ssssssss")
    flat, loose = train(an_optim("flat"), data[:4]), an_optim("loose", seed=7)
    assert is_flat(flat)
    loose.model.load_state_dict(flat.model.state_dict())
    loose.optimizer.load_state_dict(stored(flat.optimizer.state_dict()))
    for batch in data[4:]:
        go(flat, batch)
        go(loose, batch)
        agree(flat.model, loose.model)


@pytest.mark.parametrize("done", [4, 5], ids=["between", "mid"])
def test_R36_an_optimizer_that_is_loaded_goes_on_in_the_open_window(done: int) -> None:
    """As one whose user loads its state behind the library's back."""
    data, both = draws("ssssssssss"), [an_optim(layout, accum_grad=2) for layout in ("flat", "loose")]
    for optim in both:
        train(optim, data[:done])
    assert is_flat(both[0])
    for optim in both:
        optim.optimizer.load_state_dict(stored(optim.optimizer.state_dict()))
        train(optim, data[done:])
    agree(*(optim.model for optim in both))
    assert is_flat(both[0])


# ---- another configuration ----


@pytest.mark.parametrize("how", ["checkpoint", "config"])
@pytest.mark.parametrize("done", [4, 5], ids=["between", "mid"])
@pytest.mark.parametrize(("there", "here"), LAYOUTS)
def test_R35_R36_whichever_configuration_wins(there: str, here: str, done: int, how: Any) -> None:
    data, results = draws("ss-sssssssss"), []
    rules = [{"ndim": "<2", "weight_decay": 0.3}]
    for layouts in ((there, here), ("loose", "loose")):
        first = train(an_optim(layouts[0], accum_grad=2, param_groups=rules), data[:done])
        second = train(an_optim(layouts[1], accum_grad=2, conf={"lr": 0.5}, grad_clip=0.1), data[:3])
        assert is_flat(second) is (layouts[1] == "flat")
        second.model.load_state_dict(first.model.state_dict())
        second.load_state_dict(stored(first.state_dict()), on_mismatch=how)
        if how == "checkpoint":
            assert_same(*({**optim.state_dict(), "layout": None} for optim in (first, second)))
        train(second, data[done:])
        assert is_flat(second) is (layouts[1] == "flat")
        results.append(second)
    agree(*(optim.model for optim in results))


@pytest.mark.parametrize("done", [4, 5], ids=["between", "mid"])
def test_R35_asking_whether_a_state_fits_changes_nothing(done: int) -> None:
    optim = train(an_optim("flat", accum_grad=2), draws("sssss")[:done])
    assert is_flat(optim)
    before = copy.deepcopy((weights(optim.model), optim.state_dict()))
    places = [p.data_ptr() for p in optim.model.parameters()]
    other = train(an_optim("loose", accum_grad=3), draws("sss")).state_dict()
    assert optim.check_state(other, "checkpoint")
    assert [p.data_ptr() for p in optim.model.parameters()] == places
    assert_same((weights(optim.model), optim.state_dict()), before)
    assert is_flat(optim)


# ---- bit for bit ----

STORIES = {
    "always": "ssssssssssssssssss",
    "late": "--------ssssssssss",
    "now and then": "sss---s-ssssss-sss",
    "first alone": "sss-----------ssss",
}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("done", [6, 7], ids=["between", "mid"])
@pytest.mark.parametrize("conf", [{"fused": True}, {"fused": False}], ids=["fused", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
def test_R34_resumed_in_the_same_layout_it_goes_on_bit_for_bit(
    dtype: torch.dtype, conf: dict[str, Any], done: int, story: str
) -> None:
    data = draws(STORIES[story])
    settings: dict[str, Any] = {"accum_grad": 2, "grad_clip": 0.05, "conf": conf}

    def make(seed: int) -> OptimScheduler:
        optim = an_optim("flat", seed=seed)
        settings_ = {"lr": 0.02, "weight_decay": 0.1, **settings["conf"]}
        return optim_of(
            optim.model.to(dtype), "AdamW", layout="flat", accum_grad=2, grad_clip=0.05, conf=settings_
        )

    whole = train(make(0), data[:done])
    state = stored({"model": whole.model.state_dict(), "optim": whole.state_dict()})
    train(whole, data[done:])
    second = make(7)
    second.model.load_state_dict(state["model"])
    second.load_state_dict(state["optim"])
    train(second, data[done:])
    assert is_flat(whole)
    assert is_flat(second)
    assert_same(weights(second.model), weights(whole.model))
    assert_same(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("optim_type", OPTIMIZERS)
def test_R34_bit_for_bit_with_every_optimizer(optim_type: str, layout: str) -> None:
    data = draws("ssssssssss")
    whole = train(an_optim(layout, optim_type, accum_grad=2), data[:5])
    second = resumed(whole, layout, optim_type=optim_type, accum_grad=2)
    for optim in (whole, second):
        train(optim, data[5:])
        assert is_flat(optim) is (layout == "flat")
    assert_same(weights(second.model), weights(whole.model))
    assert_same(second.state_dict(), whole.state_dict())


def test_R34_bit_for_bit_after_a_layer_was_frozen() -> None:
    data = draws("s" * 12)
    optims = [an_optim("flat") for _ in range(2)]
    whole = optims[0]
    train(whole, data[:3])
    whole.model.last.requires_grad_(False)
    train(whole, data[3:6])
    assert is_flat(whole)
    state = stored({"model": whole.model.state_dict(), "optim": whole.state_dict()})
    second = an_optim("flat", seed=7)
    second.model.last.requires_grad_(False)
    second.model.load_state_dict(state["model"])
    second.load_state_dict(state["optim"])
    for optim in (whole, second):
        train(optim, data[6:9])
        optim.model.last.requires_grad_(True)
        train(optim, data[9:])
        assert is_flat(optim)
    assert_same(weights(second.model), weights(whole.model))


# ---- a stale graph ----


def stale(optim: OptimScheduler) -> Tensor:
    """A loss whose graph holds weights that an update has moved since."""
    loss: Tensor = optim.model(*draws("s", seed=2)[0])
    go(optim, draws("s")[0])
    return loss


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "Adagrad"])
def test_R12_a_stale_graph_fails_loudly(optim_type: str, fused: bool, layout: str) -> None:
    optim = train(an_optim(layout, optim_type, conf={"fused": fused}), draws("ss"))
    assert is_flat(optim) is (layout == "flat")
    before = weights(optim.model)
    loss = stale(optim)
    assert not any(torch.equal(w, before[n]) for n, w in weights(optim.model).items())
    with pytest.raises(GraphError, match="modified by an inplace operation"):
        optim.step({"loss": loss})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale(optim).backward()  # type: ignore[no-untyped-call]
    go(optim, draws("s")[0])
    assert is_flat(optim) is (layout == "flat")


@pytest.mark.parametrize("optim_type", ["RMSprop", "Rprop", "RAdam"])
def test_R12_with_an_optimizer_that_has_no_fused_kernel(optim_type: str) -> None:
    optim = train(an_optim("flat", optim_type), draws("ss"))
    assert is_flat(optim)
    with pytest.raises(GraphError, match="modified by an inplace operation"):
        optim.step({"loss": stale(optim)})


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [True, False])
def test_R12_a_graph_from_before_the_weights_were_moved_together(fused: bool, layout: str) -> None:
    """The first update moves the weights in memory, too."""
    optim = an_optim(layout, conf={"fused": fused})
    loss = stale(optim)
    assert is_flat(optim) is (layout == "flat")
    with pytest.raises(GraphError, match="modified by an inplace operation"):
        optim.step({"loss": loss})


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("what", ["frozen", "without", "moved"])
def test_R12_a_graph_from_before_a_change_of_the_layout(what: str, fused: bool, layout: str) -> None:
    optim = train(an_optim(layout, conf={"fused": fused}), draws("ss"))
    assert is_flat(optim) is (layout == "flat")
    loss = optim.model(*draws("-", seed=2)[0])
    if what == "frozen":
        optim.model.side.requires_grad_(False)
    elif what == "moved":
        optim.model.side.weight.data = optim.model.side.weight.data.clone()
    go(optim, draws("-" if what == "without" else "s")[0])
    with pytest.raises(GraphError, match="modified by an inplace operation"):
        optim.step({"loss": loss})
    del loss  # its graph looks at the weights, and the error at it
    gc.collect()
    train(optim, draws("-" if what == "without" else "s"))
    assert is_flat(optim) is (layout == "flat" and what != "moved")


@pytest.mark.parametrize("fused", [True, False])
def test_R20_a_graph_over_weights_that_were_not_moved_is_good(fused: bool) -> None:
    """A refused update leaves every graph as it is."""
    optim = train(an_optim("flat", conf={"fused": fused}), draws("ss"))
    assert is_flat(optim)
    loss = optim.model(*draws("s", seed=2)[0])
    with optim.forward():
        bad = optim.model(*draws("s")[0])
    assert optim.step({"loss": bad * torch.nan}).read().skipped
    assert optim.step({"loss": loss}).read().updated
    assert len(buffers_of(optim)) == 1
