"""Every rank holds the whole model: the gradients are averaged, by the wrapper or by hand."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optimscheduler._torch_compat import awaits_static_graph, quiet
from optimscheduler.errors import ConfigError
from optimscheduler.gradients import Gradients
from optimscheduler.parameters.owned import saved_buffers
from optimscheduler.scalars import Scalar
from optimscheduler.shards import is_sharded
from optimscheduler.sync.base import ReducedWindow
from optimscheduler.sync.ranks import Ranks, check_alike, meeting
from optimscheduler.sync.watch import Watch
from optimscheduler.update.clip import total_norm
from optimscheduler.window.window import Window

__all__ = ["FORWARD", "ReducedByDdp", "ReducedByHand", "Together"]

FORWARD: Final = "run a forward pass"

_WEIGHED: Final = ("was given", "was not given", "Give step(..., weight=) a number on every rank, or on none")
_CHECKED: Final = ("is True", "is False", "Set it alike on every rank")

_log = logging.getLogger("optimscheduler")


class Together:
    """What the ways with several ranks have in common.

    Args:
        ranks: the processes.
        model: wrapped or not.
        shares_buffers: the buffers of rank 0 go to everybody at the end of each window.
    """

    apart = True
    flushable = True

    def __init__(self, ranks: Ranks, model: nn.Module, *, shares_buffers: bool) -> None:
        self._ranks = ranks
        self._model = model
        self._shares_buffers = shares_buffers
        self._device = next(model.parameters()).device

    def begin(self) -> None:
        """The wrapper has done it."""

    def backward(self) -> AbstractContextManager[None]:
        """The forward has decided."""
        return nullcontext()

    def norm(self, gradients: Gradients, norm_type: float) -> tuple[Tensor, torch.dtype]:
        """See `total_norm`; the gradients are the same everywhere."""
        return total_norm(gradients.blocks(), norm_type, in_rows=not gradients.bit_for_bit)

    def largest(self, weight: Scalar | None) -> float:
        """One small collective, which also those ranks enter that were given none."""
        numbers = self._numbers(1.0 if weight is None else weight, weight is not None)
        weights, given = self._ranks.gather(numbers).unbind(1)
        check_alike("weight", given.bool().tolist(), _WEIGHED)
        return float(weights.max())

    def mean(self, metric: float) -> float:
        """One small collective."""
        return float(self._ranks.gather(self._numbers(metric)).mean())

    def broke_off(self) -> None:
        """Gradients lie where they can be dropped."""

    def share_buffers(self) -> None:
        """One broadcast per dtype, of the buffers that a checkpoint would hold."""
        if self._shares_buffers:
            self._ranks.share(list(saved_buffers(self._model)))

    def compare(
        self, config: Mapping[str, Any], facts: Mapping[str, float], parameters: Sequence[nn.Parameter]
    ) -> None:
        """The configuration, the numbers, and sums over the weights that are not sharded."""
        self._ranks.compare_config(config, self._device)
        whole = [p.detach() for p in parameters if not is_sharded(p)]
        sums = {
            "sum of the weights": math.fsum(float(p.double().sum()) for p in whole),
            "sum of the squared weights": math.fsum(float(p.double().square().sum()) for p in whole),
        }
        self._ranks.compare({**facts, **sums}, self._device)

    def _meet(self, gradients: Gradients, window: Window, *, checked: bool) -> ReducedWindow:
        """Mean weight over the ranks, mean loss, whose loss was not finite, whether parameters lie alike."""
        loss, plan_layout = window.loss, gradients.plan_layout()
        answers = _answers(window.weighted, plan_layout.watched, checked)
        told = (window.total, math.nan if loss is None else loss, plan_layout.places, answers)
        weights, losses, places, answered = self._ranks.gather(self._numbers(*told)).unbind(1)
        watched = _agreed([int(number) for number in answered.tolist()])
        counts = weights > 0
        total = torch.where(counts, weights, 0.0).sum()
        mean = torch.where(counts, weights * losses, 0.0).sum() / total
        weight = weights.sum() / self._ranks.count
        return ReducedWindow(
            weight=weight.item() if weight.device.type == "cpu" else weight,
            loss=mean if loss is None else mean.to(loss.dtype),
            blamed=counts & ~losses.isfinite(),
            alike=gradients.bit_for_bit or bool((places == places[0]).all()),
            watched=watched,
        )

    def _numbers(self, *numbers: Scalar) -> Tensor:
        return torch.stack(
            [
                number.to(self._device, torch.float64)
                if isinstance(number, Tensor)
                else torch.full((), number, dtype=torch.float64, device=self._device)
                for number in numbers
            ]
        )


class ReducedByDdp(Together):
    """DistributedDataParallel averages the gradients; what it does not know is averaged by hand.

    Args:
        ranks: of its process group.
        ddp: the wrapped model.
    """

    def __init__(self, ranks: Ranks, ddp: DistributedDataParallel) -> None:
        super().__init__(ranks, ddp, shares_buffers=False)  # it does so itself
        self._ddp = ddp
        self._known = {id(parameter) for parameter in ddp.parameters() if parameter.requires_grad}
        self._watch = Watch([ddp])
        self._enclosed = False  # whether a backward of the window came in the middle of its forward
        self._said = False
        self._said_static = False

    @property
    def waits(self) -> bool:
        """In the backward in which it reduces."""
        return self._watch.reduces and not self._watch.encloses

    @property
    def past_hooks(self) -> bool:
        """Where the wrapper's own forward has not ended: it prepares for the next backward only then."""
        return self._watch.encloses

    def backward(self) -> AbstractContextManager[None]:
        """Take note of where it runs, on every rank, even if this one has nothing to give."""
        self._enclosed = self._enclosed or self._watch.encloses
        return nullcontext()

    @contextmanager
    def forward(self, completes: bool) -> Iterator[None]:
        """The wrapper is quiet unless the batch completes its window, or is the first of a static graph."""
        reduces = completes or awaits_static_graph(self._ddp)
        if reduces and not completes and not self._said_static:
            self._said_static = True
            _log.info(
                "DistributedDataParallel(static_graph=True) learns the graph from its first backward, which "
                "must reduce: the gradients of the first batch travel in mid-window. From then on once per "
                "window. The weights are the same"
            )
        self._watch.announced = True
        try:
            with meeting(FORWARD), nullcontext() if reduces else quiet([self._ddp], buffers=False):
                yield
        finally:
            self._watch.announced = False

    def reduce(self, gradients: Gradients, window: Window, *, checked: bool) -> ReducedWindow:
        """The gradients are averaged already, unless the window was flushed or parameters came later."""
        if self._watch.uncalled and not self._enclosed and len(window.batches) > 1 and not self._said:
            self._said = True
            _log.warning(
                "a training forward ran outside forward(): gradients travel between the ranks in every "
                "batch instead of once per window. Write: with optim.forward(): losses = model(batch)"
            )
        self._ranks.average([p for p in gradients.parameters if not self._has_averaged(p)])
        self._enclosed = False
        return self._meet(gradients, window, checked=checked)

    def _has_averaged(self, parameter: nn.Parameter) -> bool:
        return self._watch.reduces and not self._enclosed and id(parameter) in self._known


class ReducedByHand(Together):
    """One reduction per OptimScheduler and window.

    Args:
        ranks: of the process group.
        model: what it is about.
        wrapped: the DistributedDataParallel modules in it, which do not reduce what is ours.
    """

    waits = False

    def __init__(self, ranks: Ranks, model: nn.Module, wrapped: Collection[DistributedDataParallel]) -> None:
        shares_buffers = all(ddp.broadcast_buffers for ddp in wrapped)
        super().__init__(ranks, model, shares_buffers=shares_buffers)
        self._wrapped = list(wrapped)
        self._watch = Watch(self._wrapped)

    @property
    def past_hooks(self) -> bool:
        """Where a wrapper waits for gradients, which must not be these, or would count them.

        Raises:
            ConfigError: the wrapper would learn its static graph from them.
        """
        counts = any(map(awaits_static_graph, self._wrapped))
        if counts and self._watch.prepared and not self._watch.encloses:
            raise ConfigError(
                "under DistributedDataParallel(static_graph=True), with several OptimSchedulers or a part of "
                "the parameters, every training forward must run inside forward(): one did not. Write: "
                "with optim.forward(): losses = model(batch)"
            )
        return counts or self._watch.prepared or self._watch.encloses

    def begin(self) -> None:
        """Everybody starts with the weights and buffers of rank 0, as under a wrapper."""
        self._ranks.share(loose_tensors(self._model, self._wrapped))

    @contextmanager
    def forward(self, completes: bool) -> Iterator[None]:  # noqa: ARG002  # the protocol's
        """No backward reduces."""
        with meeting(FORWARD), quiet(self._wrapped):
            yield

    def reduce(self, gradients: Gradients, window: Window, *, checked: bool) -> ReducedWindow:
        """One reduction for all gradients, and a small one."""
        self._ranks.average(gradients.parameters)
        return self._meet(gradients, window, checked=checked)


def _answers(weighted: bool | None, watched: bool, checked: bool) -> int:
    """What a rank says of its window, in one number; `weighted` is None of an empty one."""
    return watched + 2 * checked + 4 * (2 if weighted is None else weighted)


def _agreed(answers: Sequence[int]) -> bool:
    """Whether on some rank somebody watches the optimizer.

    Raises:
        RankError: the ranks were told different things.
    """
    if any(answer >> 1 != answers[0] >> 1 for answer in answers):
        check_alike("check_ranks", [bool(answer & 2) for answer in answers], _CHECKED)
        weighted = [answer >> 2 for answer in answers]
        check_alike("weight", [None if given > 1 else bool(given) for given in weighted], _WEIGHED)
    return any(answer & 1 for answer in answers)


def loose_tensors(model: nn.Module, wrapped: Collection[nn.Module]) -> list[Tensor]:
    """Parameters and saved buffers that nobody has made equal on all ranks: neither wrapped nor sharded."""
    equal = {id(tensor) for part in wrapped for tensor in (*part.parameters(), *part.buffers())}
    everything = (*model.parameters(), *saved_buffers(model))
    return [tensor for tensor in everything if id(tensor) not in equal and not is_sharded(tensor)]
