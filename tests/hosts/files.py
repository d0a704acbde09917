"""Saving, loading and copying with torch's tools and others'."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer

from optimscheduler import OptimScheduler
from tests.hosts.row import Row
from tests.hosts.trainings import MODELS, apart, ours, plain, steps, torchs

__all__ = ["ROWS"]

_HALF, _ALL = range(4), range(4, 8)


def _expected(make: Any) -> tuple[nn.Module, Optimizer]:
    other = make()
    optimizer = torchs(other)
    plain(other, optimizer, range(8))
    return other, optimizer


def _resumed(go_on: Any, layout: str) -> float:
    """Half of the way, then on with what `go_on` makes of it. Any: (optim, a new one) -> model, optim."""
    found = []
    for make in MODELS:
        model, again = make(), make()
        optim, new = ours(model, layout), ours(again, layout)
        steps(optim, _HALF)
        again.load_state_dict(model.state_dict())
        model, went_on = go_on(optim, new)
        if isinstance(went_on, OptimScheduler):
            steps(went_on, _ALL)
            went_on = went_on.optimizer
        else:
            plain(model, went_on, _ALL)
        found.append(apart((model, went_on), _expected(make)))
    return max(found)


def _dcp_of_the_optimizer(layout: str) -> float:
    def go_on(optim: OptimScheduler, new: OptimScheduler) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            dcp.save(
                get_optimizer_state_dict(optim.model, optim.optimizer), checkpoint_id=folder, no_dist=True
            )
            state = get_optimizer_state_dict(new.model, new.optimizer)
            dcp.load(state, checkpoint_id=folder, no_dist=True)
            set_optimizer_state_dict(new.model, new.optimizer, state)
        return new.model, new

    return _resumed(go_on, layout)


def _dcp_of_the_object(layout: str) -> float:
    def go_on(optim: OptimScheduler, new: OptimScheduler) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            dcp.save({"optim": optim}, checkpoint_id=folder, no_dist=True)
            dcp.load({"optim": new}, checkpoint_id=folder, no_dist=True)
        return new.model, new

    return _resumed(go_on, layout)


def _saved_by_torch(layout: str) -> float:
    """`state_dict()` of both, into ours and into torch's own."""

    def of(optim: OptimScheduler) -> Any:
        file = io.BytesIO()
        torch.save([optim.model.state_dict(), optim.optimizer.state_dict()], file)
        file.seek(0)
        return torch.load(file)

    def into_ours(optim: OptimScheduler, new: OptimScheduler) -> Any:
        weights, state = of(optim)
        new.model.load_state_dict(weights)
        new.optimizer.load_state_dict(state)
        return new.model, new

    def into_torchs(optim: OptimScheduler, new: OptimScheduler) -> Any:
        weights, state = of(optim)
        new.model.load_state_dict(weights)
        optimizer = torchs(new.model)
        optimizer.load_state_dict(state)
        return new.model, optimizer

    return max(_resumed(into_ours, layout), _resumed(into_torchs, layout))


def _pickled(layout: str) -> float:
    """Model and optimizer, which becomes an ordinary one."""

    def go_on(optim: OptimScheduler, new: OptimScheduler) -> Any:
        return pickle.loads(pickle.dumps((optim.model, optim.optimizer)))

    return _resumed(go_on, layout)


def _copied(layout: str) -> float:
    def go_on(optim: OptimScheduler, new: OptimScheduler) -> Any:
        model, copied = copy.deepcopy((optim.model, optim))
        steps(optim, range(2))  # which must not reach the copy
        return model, copied

    return _resumed(go_on, layout)


def _copied_model(layout: str) -> float:
    """The copy stays as it is; the original goes on."""

    def go_on(optim: OptimScheduler, new: OptimScheduler) -> Any:
        teacher = copy.deepcopy(optim.model)
        before = {key: value.clone() for key, value in teacher.state_dict().items()}
        steps(new, [0])
        new.model.load_state_dict(teacher.state_dict())
        assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
        return optim.model, optim

    return _resumed(go_on, layout)


def _safetensors(layout: str) -> float:
    def go_on(optim: OptimScheduler, new: OptimScheduler) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            save_model(optim.model, str(file))
            load_model(new.model, file)
        new.optimizer.load_state_dict(optim.optimizer.state_dict())
        return new.model, new

    return _resumed(go_on, layout)


ROWS = (
    Row(name="deepcopy_model", tool="`copy.deepcopy(model)`", trial=_copied_model),
    Row(name="deepcopy", tool="`copy.deepcopy((model, optim))`", trial=_copied),
    Row(
        name="torch_save",
        tool="`torch.save` of `model.state_dict()` and `optim.optimizer.state_dict()`, loaded by either",
        trial=_saved_by_torch,
    ),
    Row(name="pickle", tool="`pickle` or `torch.save` of `(model, optim.optimizer)` whole", trial=_pickled),
    Row(
        name="dcp_optimizer",
        tool="`get_optimizer_state_dict`, `set_optimizer_state_dict`, with `dcp.save` and `dcp.load`",
        trial=_dcp_of_the_optimizer,
    ),
    Row(name="dcp_object", tool='`dcp.save({"optim": optim})`, `dcp.load`', trial=_dcp_of_the_object),
    Row(name="safetensors", tool="`safetensors.torch.save_model`, `load_model`", trial=_safetensors),
)
