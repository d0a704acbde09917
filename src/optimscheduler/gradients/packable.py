"""Which optimizers and which parameters may be laid side by side in one tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)

from optimscheduler._torch_compat import holders_of
from optimscheduler.shards import is_sharded

__all__ = ["SCALARS", "is_dense", "packable", "reason_against"]

SCALARS: Final[dict[type[Optimizer], frozenset[str]]] = {
    Adadelta: frozenset({"step"}),
    Adagrad: frozenset({"step"}),
    Adam: frozenset({"step"}),
    Adamax: frozenset({"step"}),
    AdamW: frozenset({"step"}),
    ASGD: frozenset({"step", "eta", "mu"}),
    NAdam: frozenset({"step", "mu_product"}),
    RAdam: frozenset({"step"}),
    RMSprop: frozenset({"step"}),
    Rprop: frozenset({"step"}),
    SGD: frozenset(),
}
"""The optimizers of torch that treat each element for itself, with what they keep once per tensor."""

_DEVICES: Final = ("cpu", "cuda")

_DTYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def reason_against(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> str | None:
    """Why nothing can be laid side by side; None if it can."""
    name = type(optimizer).__name__
    if type(optimizer) not in SCALARS:
        return f"{name} is not known to treat each element for itself"
    if any(group.get("differentiable") for group in optimizer.param_groups):
        return f"{name} is differentiable"
    if any(map(is_sharded, parameters)):
        return "the parameters are sharded"
    return None


def packable(parameters: Iterable[nn.Parameter], model: nn.Module) -> list[nn.Parameter]:
    """Those that may move: dense and real, in memory that nothing else looks at.

    Something that was made of a parameter before, say by `model.state_dict()`, would go on showing the old
    memory. How many tensors lie in a memory is asked of torch.

    Args:
        parameters: to choose from.
        model: everything that may lie in the same memory.
    """
    addresses: Counter[int] = Counter()
    storages: Counter[int] = Counter()
    for tensor in (*model.parameters(), *model.buffers()):
        if not is_lazy(tensor) and tensor.layout is torch.strided and not is_sharded(tensor):
            addresses[tensor.data_ptr()] += 1
            storages[tensor.untyped_storage().data_ptr()] += 1
    return [
        p
        for p in parameters
        if _is_plain(p)
        and addresses[p.data_ptr()] <= 1
        and _fills_its_memory(p)
        and _only_so_many_look_at(p.untyped_storage(), max(storages[p.untyped_storage().data_ptr()], 1))
    ]


def _only_so_many_look_at(storage: torch.UntypedStorage, count: int) -> bool:
    """Whether no more tensors lie there than these; no where torch does not say."""
    holders = holders_of(storage)
    return holders is not None and holders - 1 <= count  # less who asks


def _is_plain(parameter: nn.Parameter) -> bool:
    return (
        type(parameter) is nn.Parameter
        and parameter.layout is torch.strided
        and parameter.device.type in _DEVICES
        and parameter.dtype in _DTYPES
        and not (parameter.device.type == "cpu" and parameter.is_shared())  # type: ignore[no-untyped-call]  # torch's
        and parameter.numel() > 0
        and is_dense(parameter)
    )


def is_dense(tensor: Tensor) -> bool:
    """Whether its elements lie side by side, each once, in whatever order."""
    span = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != span:
                return False
            span *= size
    return True


def _fills_its_memory(parameter: nn.Parameter) -> bool:
    return parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
