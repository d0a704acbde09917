"""The processes that train one model together, and what they say to one another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from optimscheduler._torch_compat import copy_all_
from optimscheduler.errors import RankError
from optimscheduler.plain_config import differences, fingerprint

__all__ = ["Ranks", "absence_behind", "check_alike", "meeting"]

_LISTED: Final = 5  # differences, or ranks, that are told one by one

_GLOO = "gloo/"
"""What torch's messages contain when a rank did not come; on gloo it has no exception class for that."""


@contextmanager
def meeting(what: str) -> Iterator[None]:
    """Turn torch's failure of a collective into an error that says what to look for.

    Raises:
        RankError: another rank did not come.
    """
    try:
        yield
    except RuntimeError as error:
        if absence := absence_behind(error, what):
            raise absence from error
        raise


def absence_behind(error: RuntimeError, what: str) -> RankError | None:
    """What to say if the error means that another rank did not come."""
    together = dist.is_available() and dist.is_initialized()
    if not together or isinstance(error, RankError):
        return None
    if not isinstance(error, dist.DistError) and _GLOO not in str(error):
        return None
    return RankError(
        f"rank {dist.get_rank()} waited for the other ranks to {what}, and at least one did not come. "
        "Every rank must run the same number of batches and call forward(), step() and flush() alike: "
        "does one loader give fewer batches, or did a rank stop with an error of its own? "
        f"(torch: {str(error).strip().splitlines()[0]:.160})"
    )


class Ranks:
    """A process group.

    Args:
        group: torch's; None is the default group, of all processes.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.count = dist.get_world_size(group)
        self.rank = dist.get_rank(group)

    def gather(self, numbers: Tensor) -> Tensor:
        """Everybody's numbers.

        Args:
            numbers: shape (n,), the same n on every rank.

        Returns:
            Shape (ranks, n), on the same device.
        """
        everybody = [torch.empty_like(numbers) for _ in range(self.count)]
        with meeting("compare numbers"):
            dist.all_gather(everybody, numbers, group=self._group)
        return torch.stack(everybody)

    def average(self, leaves: Sequence[Tensor]) -> None:
        """Replace the gradients of these parameters by their means over the ranks.

        A parameter without gradient on one rank counts as zero there; without on all it stays without.
        One reduction per dtype, whatever the number of parameters.

        Raises:
            RankError: a gradient is sparse, or another rank did not come.
        """
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for leaf in leaves:
            if leaf.requires_grad:
                alike[leaf.device, leaf.dtype].append(leaf)
        for same in alike.values():
            self._average(same)

    @torch.no_grad()
    def _average(self, leaves: Sequence[Tensor]) -> None:
        present = torch.tensor([leaf.grad is not None for leaf in leaves])
        pieces = [_flat(leaf) for leaf in leaves]
        together = torch.cat([*pieces, present.to(pieces[0])]).div_(self.count)
        with meeting("average gradients"):
            dist.all_reduce(together, group=self._group)
        *averages, anywhere = torch.split(together, [*(leaf.numel() for leaf in leaves), len(leaves)])
        if not present.all():
            for leaf, there in zip(leaves, anywhere.tolist(), strict=True):
                if leaf.grad is None and there:
                    leaf.grad = torch.zeros_like(leaf)
        pairs = [
            (leaf.grad, average.view_as(leaf))
            for leaf, average in zip(leaves, averages, strict=True)
            if leaf.grad is not None
        ]
        if pairs:
            copy_all_([gradient for gradient, _ in pairs], [average for _, average in pairs])

    @torch.no_grad()
    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give everybody the values of rank 0; one broadcast per dtype."""
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            alike[tensor.device, tensor.dtype].append(tensor)
        for same in alike.values():
            together = torch.cat([tensor.reshape(-1) for tensor in same])
            with meeting("share the values of rank 0"):
                dist.broadcast(together, group=self._group, group_src=0)
            pieces = torch.split(together, [tensor.numel() for tensor in same])
            for tensor, piece in zip(same, pieces, strict=True):
                tensor.data.copy_(piece.view_as(tensor))  # a graph that has seen a buffer stays good

    def compare_config(self, config: Mapping[str, Any], device: torch.device) -> None:
        """Check that every rank has the same configuration, plain values; its settings cross only if not.

        Raises:
            RankError: one differs; it is named, with the settings and both values.
        """
        prints = self.gather(torch.tensor([fingerprint(config)], dtype=torch.float64, device=device))[:, 0]
        if bool((prints == prints[0]).all()):
            return
        everybody: list[Any] = [None] * self.count  # Any: filled in place
        with meeting("compare configurations"):
            dist.all_gather_object(everybody, dict(config), group=self._group)
        for rank, other in enumerate(everybody):
            lines = list(differences(other, everybody[0], there="there", here="on rank 0"))
            if lines:
                more = f", and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
                told = "; ".join(lines[:_LISTED])
                raise RankError(f"rank {rank} differs from rank 0 in the configuration: {told}{more}")

    def compare(self, facts: Mapping[str, float], device: torch.device) -> None:
        """Check that every rank has the same numbers.

        Raises:
            RankError: one differs; it is named, with what it differs in.
        """
        everybody = self.gather(torch.tensor(list(facts.values()), dtype=torch.float64, device=device))
        for fact, (first, *others) in zip(facts, everybody.T.tolist(), strict=True):
            for rank, other in enumerate(others, start=1):
                if other != first and not (math.isnan(other) and math.isnan(first)):
                    raise RankError(
                        f"rank {rank} differs from rank 0 in the {fact}: {other!r} there, {first!r} on rank 0"
                    )


def check_alike(what: str, answers: Sequence[bool | None], words: tuple[str, str, str]) -> None:
    """Check that all ranks answer a question alike; all must have the answers of all.

    Args:
        what: the setting or argument that it is about.
        answers: rank by rank; None does not count.
        words: for yes, for no, and what to do.

    Raises:
        RankError: they do not.
    """
    yes, no = (_ranks_named([r for r, given in enumerate(answers) if given is a]) for a in (True, False))
    if yes and no:
        raise RankError(f"{what} {words[0]} on {yes}, and {words[1]} on {no}. {words[2]}")


def _ranks_named(ranks: Sequence[int]) -> str:
    """Their numbers, as in `ranks 0, 1`; nothing for none."""
    if len(ranks) < 2:
        return f"rank {ranks[0]}" if ranks else ""
    listed = ", ".join(map(str, ranks[:_LISTED]))
    return f"ranks {listed}" if len(ranks) <= _LISTED else f"{len(ranks)} ranks ({listed}, ...)"


def _flat(leaf: Tensor) -> Tensor:
    """The gradient of a parameter as one row; zeros where it has none."""
    if leaf.grad is None:
        return torch.zeros_like(leaf).reshape(-1)
    if leaf.grad.is_sparse:
        raise RankError(
            "a sparse gradient cannot be averaged over ranks; build the embedding with sparse=False"
        )
    return leaf.grad.reshape(-1)
