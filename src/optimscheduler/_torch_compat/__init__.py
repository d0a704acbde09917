"""Everything that is private to torch, in one place.

Each function has a way to do without the private name. That way is slower, never wrong, and never an error:
where torch cannot be asked whether something is safe, the answer is that it is not.
"""

from __future__ import annotations

from optimscheduler._torch_compat.graphs import dtypes_of, graph_age, leaf_of
from optimscheduler._torch_compat.modules import (
    awaits_static_graph,
    inside_ddp,
    quiet,
    scatters_gradients,
    unsaved_buffers,
    was_sharded,
)
from optimscheduler._torch_compat.optimizers import (
    bare_step,
    has_step_hooks,
    is_of_torch,
    is_scheduled,
    let_take_scale,
    say_stepped,
    step_fused_adam,
    takes_scale,
)
from optimscheduler._torch_compat.tensors import (
    clamp_all_,
    copy_all_,
    copy_of,
    holders_of,
    is_wrapper,
    lerp_all_,
    multiply_all_,
    norms_of,
    products_of,
    update_scale_,
    version_of,
)

__all__ = [
    "awaits_static_graph",
    "bare_step",
    "clamp_all_",
    "copy_all_",
    "copy_of",
    "dtypes_of",
    "graph_age",
    "has_step_hooks",
    "holders_of",
    "inside_ddp",
    "is_of_torch",
    "is_scheduled",
    "is_wrapper",
    "leaf_of",
    "lerp_all_",
    "let_take_scale",
    "multiply_all_",
    "norms_of",
    "products_of",
    "quiet",
    "say_stepped",
    "scatters_gradients",
    "step_fused_adam",
    "takes_scale",
    "unsaved_buffers",
    "update_scale_",
    "version_of",
    "was_sharded",
]
