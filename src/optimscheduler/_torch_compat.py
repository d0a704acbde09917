"""Everything that is private to torch, in one place.

Each function has a way to do without the private name. That way is slower, never wrong, and never an error:
where torch cannot be asked whether something is safe, the answer is that it is not.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import profiler
from torch.autograd.graph import Node
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as _module

__all__ = [
    "awaits_static_graph",
    "bare_step",
    "copy_all_",
    "copy_of",
    "dtypes_of",
    "graph_age",
    "has_step_hooks",
    "holders_of",
    "inside_ddp",
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

# ---- memory ----


def holders_of(storage: torch.UntypedStorage) -> int | None:
    """How many tensors and storages hold this memory, the caller's included; None where nobody can say."""
    try:
        return int(torch._C._storage_Use_Count(storage._cdata))
    except AttributeError:
        return None


def version_of(tensor: Tensor) -> int | None:
    """How often its memory was written to; None where torch does not say."""
    try:
        return tensor._version
    except (AttributeError, RuntimeError):  # the latter of tensors made in inference mode
        return None


def unsaved_buffers(module: nn.Module) -> set[str]:
    """The names of a module's own buffers that are not saved with it."""
    try:
        return module._non_persistent_buffers_set
    except AttributeError:
        saved = module.state_dict(keep_vars=True)
        return {name for name, _ in module.named_buffers(recurse=False) if name not in saved}


def is_wrapper(tensor: Tensor) -> bool:
    """Whether a tensor is made of other tensors, as quantised ones are; a sharded one is not meant."""
    return hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "placements")


def copy_of(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, also of tensors that are made of others and cannot be cloned.

    Raises:
        NotImplementedError: the class of the tensor allows neither.
    """
    if not is_wrapper(tensor):
        return tensor.clone()
    try:
        names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]  # the wrappers' protocol
        inner = {name: copy_of(getattr(tensor, name)) for name in names}
        copied: Tensor = type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())  # type: ignore[attr-defined]  # see above
    except (AttributeError, TypeError) as error:
        raise NotImplementedError(f"{type(tensor).__name__} cannot be copied: {error}") from error
    return copied


# ---- graphs and wrappers ----


def graph_age(node: Node | None = None) -> int | None:
    """How many nodes of graphs this thread had made when it made that one, or has made by now.

    Returns:
        None where torch does not say: graphs then have to be looked at.
    """
    try:
        number: int = torch._C._autograd._get_sequence_nr() if node is None else node._sequence_nr()
    except AttributeError:
        return None
    return number


def dtypes_of(node: Node) -> list[torch.dtype]:
    """In what a node receives its gradients; nothing where torch does not say."""
    return [entry.dtype for entry in getattr(node, "_input_metadata", ())]


def leaf_of(node: Node) -> Tensor | None:
    """The leaf tensor whose gradient a node of the name AccumulateGrad adds to; None where torch hides it."""
    leaf: Tensor | None = getattr(node, "variable", None)
    return leaf


def inside_ddp() -> bool:
    """Whether the forward of a DistributedDataParallel is running; False where torch does not say.

    It is asked about wrappers that we do not see; those that we see have hooks of ours.
    """
    return getattr(DistributedDataParallel, "_active_ddp_module", None) is not None


def was_sharded(parameter: Tensor) -> bool:
    """Whether DistributedDataParallel has put it in place of a DTensor; no where torch hides it."""
    return hasattr(parameter, "_st_info")


@contextmanager
def quiet(wrapped: Sequence[DistributedDataParallel], *, buffers: bool = True) -> Iterator[None]:
    """Forwards inside prepare no reduction; afterwards the wrappers are as before.

    Args:
        wrapped: the wrappers.
        buffers: the forwards share no buffers either, and the next one does as if these had not been.
    """
    settings = {"require_backward_grad_sync": False, "_static_graph_delay_allreduce_enqueued": True}
    settings |= {"require_forward_param_sync": False} if buffers else {}
    before = [(ddp, name, getattr(ddp, name)) for ddp in wrapped for name in settings if hasattr(ddp, name)]
    for ddp, name, _ in before:
        setattr(ddp, name, settings[name])
    try:
        yield
    finally:
        for ddp, name, value in before:
            setattr(ddp, name, value)


def awaits_static_graph(ddp: DistributedDataParallel) -> bool:
    """Whether the wrapper takes its first backward, reduced or not, for what its static graph is."""
    return bool(ddp.static_graph) and not getattr(ddp, "_static_graph_delay_allreduce_enqueued", False)


def scatters_gradients(part: Any) -> bool:  # Any: torch mixes the class in
    """Whether a backward through a module under `fully_shard` reduces; True where torch does not say."""
    try:
        state = part._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]  # of torch 2.11
        return all(group.reduce_grads for group in groups if group is not None)
    except AttributeError:
        return True


# ---- optimizers ----


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether somebody wants to be called before or after `optimizer.step`; True where torch does not say."""
    try:
        return bool(
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or _module._global_optimizer_pre_hooks
            or _module._global_optimizer_post_hooks
        )
    except AttributeError:
        return True


def is_scheduled(optimizer: Optimizer) -> bool:
    """Whether a learning-rate scheduler of torch, which counts, and nobody else has wrapped its `step`."""
    replaced = vars(optimizer).get("step")
    if not getattr(replaced, "_wrapped_by_lr_sched", False):
        return False
    return getattr(replaced, "__wrapped__", None) is type(optimizer).step


def say_stepped(optimizer: Optimizer) -> None:
    """Tell torch's learning-rate schedulers that the optimizer has stepped."""
    optimizer._opt_called = True  # type: ignore[attr-defined]  # what their wrapper writes


def takes_scale(optimizer: Optimizer) -> bool:
    """Whether `step` divides by `optimizer.grad_scale` and obeys `optimizer.found_inf`."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))  # the mark that GradScaler reads


def let_take_scale(optimizer: Optimizer, *, fused: bool) -> None:
    """Choose the kernel of a torch optimizer whose class has a fused one."""
    for group in optimizer.param_groups:
        group["fused"] = fused or None
    vars(optimizer)["_step_supports_amp_scaling"] = fused


def bare_step(optimizer: Optimizer) -> Callable[[Optimizer], Any] | None:
    """The `step` of a torch optimizer without torch's wrappers; None where somebody needs them.

    They serve hooks, profilers, the compiler, and callers who have not disabled gradients; they take a tenth
    of the whole step of a tiny model.
    """
    step = type(optimizer).step
    needed = (
        not getattr(step, "hooked", False)  # torch's mark of its wrapper
        or torch.is_grad_enabled()
        or "step" in vars(optimizer)
        or getattr(profiler, "_is_profiler_enabled", True)
        or has_step_hooks(optimizer)
        or optimizer.defaults.get("differentiable")
        or not type(optimizer).__module__.startswith("torch.optim.")
    )
    return None if needed else _unwrapped(step)


_unwrapped = functools.cache(inspect.unwrap)


def step_fused_adam(optimizer: Optimizer, scale: Tensor | None, found_inf: Tensor | None) -> bool:
    """The fused step of Adam and AdamW without torch's Python around it, a sixth of the step of a tiny model.

    Args:
        optimizer: any, whose step nobody watches; gradients are disabled.
        scale: 0-d, float32: what the gradients are divided by; None is 1.
        found_inf: 0-d, float32: more than 0 where nothing may move; None is 0.

    Returns:
        Whether it was done; if not, nothing is changed, and it is for `optimizer.step()` to do.
    """
    if type(optimizer) not in (Adam, AdamW) or getattr(profiler, "_is_profiler_enabled", True):
        return False
    if not getattr(type(optimizer).step, "hooked", False):  # torch's mark: somebody has replaced it
        return False
    groups = optimizer.param_groups
    lists = [_lists_of_fused_adam(optimizer.state, group) for group in groups]
    if None in lists:
        return False
    for group, tensors in zip(groups, lists, strict=True):
        if not tensors or not tensors[0]:
            continue
        beta1, beta2 = group["betas"]
        torch._foreach_add_(tensors[-1], 1)
        (torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_)(
            *tensors,
            amsgrad=group["amsgrad"],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
            grad_scale=scale,
            found_inf=found_inf,
        )
        if found_inf is not None:
            torch._foreach_sub_(tensors[-1], [found_inf] * len(tensors[-1]))
    return True


def _lists_of_fused_adam(
    states: Mapping[Tensor, Mapping[str, Any]], group: Mapping[str, Any]
) -> list[list[Tensor]] | None:
    """What the operator takes, the counters last; None where it needs what only torch's Python prepares."""
    settings = [group.get("lr"), *group.get("betas", [None])]
    if "decoupled_weight_decay" not in group or any(type(setting) is not float for setting in settings):
        return None
    parameters = [p for p in group["params"] if p.grad is not None]
    if len(parameters) > 1 and len({(p.device, p.dtype) for p in parameters}) > 1:
        return None
    try:
        kept = [states[p] for p in parameters]
        return [
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in kept],
            [state["exp_avg_sq"] for state in kept],
            [state["max_exp_avg_sq"] for state in kept] if group["amsgrad"] else [],
            [state["step"] for state in kept],
        ]
    except KeyError:
        return None


def update_scale_(
    scale: Tensor, tracker: Tensor, found: Tensor, growth: float, backoff: float, interval: int
) -> None:
    """The rule of `torch.amp.GradScaler`, in place.

    Args:
        scale: 0-d, float32.
        tracker: 0-d, int32: finite windows in a row.
        found: 0-d, float32: more than 0 where a gradient was not finite.
        growth: factor after `interval` finite windows.
        backoff: factor after one that was not finite.
        interval: windows.
    """
    try:
        torch._amp_update_scale_(scale, tracker, found, growth, backoff, interval)
    except AttributeError:
        bad = found > 0
        count = torch.where(bad, 0, tracker + 1)
        grows = count == interval
        grown = torch.where((scale * growth).isfinite() & grows, scale * growth, scale)
        scale.copy_(torch.where(bad, scale * backoff, grown))
        tracker.copy_(torch.where(grows, 0, count))


# ---- many tensors at once ----


def multiply_all_(tensors: Sequence[Tensor], factor: float | Tensor) -> None:
    """Multiply each in place by one number."""
    try:
        torch._foreach_mul_(list(tensors), factor)
    except AttributeError:
        for tensor in tensors:
            tensor.mul_(factor)


def clamp_all_(tensors: Sequence[Tensor], most: float) -> None:
    """Bring every element of each into [-most, most], in place."""
    try:
        torch._foreach_clamp_min_(list(tensors), -most)
        torch._foreach_clamp_max_(list(tensors), most)
    except AttributeError:
        for tensor in tensors:
            tensor.clamp_(-most, most)


def products_of(tensors: Sequence[Tensor], factor: float) -> list[Tensor]:
    """Each times one number."""
    try:
        return list(torch._foreach_mul(list(tensors), factor))
    except AttributeError:
        return [tensor * factor for tensor in tensors]


def lerp_all_(targets: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move each target to its end by that part of the way, 0 to 1."""
    try:
        torch._foreach_lerp_(list(targets), list(ends), weight)
    except AttributeError:
        for target, end in zip(targets, ends, strict=True):
            target.lerp_(end, weight)


def copy_all_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target."""
    try:
        torch._foreach_copy_(list(targets), list(sources))
    except AttributeError:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def norms_of(tensors: Sequence[Tensor], norm_type: float, dtype: torch.dtype | None) -> list[Tensor]:
    """The p-norm of each, 0-d."""
    try:
        return list(torch._foreach_norm(list(tensors), norm_type, dtype=dtype))
    except AttributeError:
        return [torch.linalg.vector_norm(tensor, norm_type, dtype=dtype) for tensor in tensors]
