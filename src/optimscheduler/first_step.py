"""What an optimizer will keep about a parameter that it has never stepped.

A loader that fills what it is given, as `torch.distributed.checkpoint` does, needs a place for each tensor.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from optimscheduler.gradients.twin import twin_of

__all__ = ["state_after_first_step"]


@torch.no_grad()
def state_after_first_step(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: nn.Parameter
) -> dict[str, Any]:
    """The state that a first step with a gradient of zeros makes; optimizer and parameter are left alone.

    Args:
        optimizer: any whose `step` needs no closure.
        group: that of the parameter.
        parameter: sharded or not.

    Returns:
        Its entries. None where the optimizer keeps nothing, or is not torch's: its step may do anything.
    """
    if not type(optimizer).__module__.startswith("torch.optim."):
        return {}
    stand_in = nn.Parameter(torch.zeros_like(parameter))
    stand_in.grad = torch.zeros_like(parameter)
    twin = twin_of(optimizer, fused=False)
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        setattr(twin, hooks, OrderedDict())
    twin.param_groups = [{**group, "params": [stand_in]}]
    inspect.unwrap(type(optimizer).step)(twin)
    return dict(twin.state.get(stand_in, {}))
