"""Who owns which parameters of a model, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.parameters.owned import canonical

__all__ = ["Row", "owners_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of who owns what."""

    owner: str
    group: str
    tensors: int
    parameters: int
    lr: float | None
    weight_decay: float | None


def owners_table(model: nn.Module, optim_sches: OptimSchedulerDict) -> list[Row]:
    """A row for each group of each optimizer, and for what nobody trains."""
    rows: list[Row] = []
    left = {canonical(name): parameter for name, parameter in model.named_parameters()}
    frozen = {name: left.pop(name) for name, parameter in list(left.items()) if not parameter.requires_grad}
    for owner, optim in optim_sches.items():
        for described, group in zip(optim.owned.groups, optim.optimizer.param_groups, strict=True):
            owned = [left.pop(name) for name in described.parameters if name in left]
            rows.append(_row(owner, described.label, owned, group["lr"], group.get("weight_decay")))
    for owner, rest in {"nobody: will not train": left, "frozen": frozen}.items():
        if rest:
            rows.append(
                _row(
                    owner,
                    ", ".join(list(rest)[:3]) + ("" if len(rest) <= 3 else ", ..."),
                    list(rest.values()),
                )
            )
    return rows


def _row(
    owner: str,
    group: str,
    owned: Sequence[nn.Parameter],
    lr: float | None = None,
    weight_decay: float | None = None,
) -> Row:
    count = sum(p.numel() for p in owned)
    return Row(
        owner=owner, group=group, tensors=len(owned), parameters=count, lr=lr, weight_decay=weight_decay
    )
