"""Gradients as torch leaves them: one `.grad` per parameter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from optimscheduler._torch_compat import is_scheduled, say_stepped
from optimscheduler.gradients.stored_tensor import StoredTensor, itself
from optimscheduler.gradients.twin import is_laid_for_fused, is_watched, take_settings, twin_of
from optimscheduler.scalars import Flag, seen
from optimscheduler.shards import local

__all__ = ["LayoutPlan", "PerTensor", "pair_of"]

_log = logging.getLogger("optimscheduler")


class LayoutPlan(NamedTuple):
    """What the ranks compare before an update.

    Attributes:
        places: a number that stands for where parameters lie and are going to lie.
        watched: somebody wants to see the user's optimizer step.
    """

    places: int
    watched: bool


class PerTensor:
    """The reference layout: every parameter and every gradient a tensor of its own.

    Args:
        parameters: canonical name -> parameter, in the optimizer's order.
        optimizer: the user's, over these.
        fused: step a twin of it that uses the fused kernel.
    """

    bit_for_bit = True
    moved_elsewhere: Sequence[nn.Parameter] = ()

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, *, fused: bool = False
    ) -> None:
        self._named = dict(parameters)
        self._user = optimizer
        self._twin = twin_of(optimizer, fused=True) if fused else None
        self._own = list(self._named.values())  # those whose `.grad` is a block
        self._blocks: list[Tensor] | None = None  # from `apply_layout` to `clear`
        self._of_groups = [
            (list(group["params"]), _singles(group["params"])) for group in optimizer.param_groups
        ]
        self.parameters = list(self._named.values())
        self.watched = False
        self.laid: object = object()

    def __str__(self) -> str:
        return f"{len(self.parameters)} tensors, each on its own"

    @property
    def named(self) -> Mapping[str, nn.Parameter]:
        """Canonical name -> parameter."""
        return self._named

    def stored_tensors(self) -> list[StoredTensor]:
        """Every parameter on its own."""
        return [StoredTensor(parameter, [name], itself) for name, parameter in self._named.items()]

    # ---- the optimizers ----

    @property
    def stepped(self) -> Optimizer:
        """The optimizer that an update steps: the twin, or the user's where that is watched."""
        return self._user if self._twin is None or self.watched else self._twin

    def is_current(self) -> bool:
        """Whether the user's optimizer still has the same parameters, in the same groups."""
        groups = self._user.param_groups
        if len(groups) != len(self._of_groups):
            return False
        try:  # lists look at identity first, which is quick, and compare other tensors: most raise at that
            for group, (ours, singles) in zip(groups, self._of_groups, strict=True):
                now = group["params"]
                if now != ours or (singles and any(now[i] is not ours[i] for i in singles)):
                    return False
        except Exception:  # whatever torch says of two tensors
            return False
        return True

    def before_step(self) -> None:
        """The groups have their numbers: hand them, and the state, to the twin."""
        if self._twin is not None and not self.watched:
            self._twin.state = self._user.state
            take_settings(self._twin, self._user)
            for group, theirs in zip(self._twin.param_groups, self._user.param_groups, strict=True):
                group["params"] = theirs["params"]
                self._bring_counts(theirs["params"])

    def _bring_counts(self, parameters: Sequence[Tensor]) -> None:
        """The fused kernel wants them where the parameters are; other steps leave them on the host."""
        for parameter in parameters if parameters and parameters[0].device.type != "cpu" else ():
            state = self._user.state.get(parameter)
            if state and "step" in state and state["step"].device != parameter.device:
                state["step"] = state["step"].to(parameter.device)

    def after_step(self, moved: Flag = True) -> None:
        """The twin has stepped, if there is one; a scheduler of torch wants to know of steps that moved."""
        if is_scheduled(self._user) and seen(moved) is not False:
            say_stepped(self._user)

    # ---- around an update ----

    def plan_layout(self) -> LayoutPlan:
        """Nothing is going to move."""
        return LayoutPlan(0, is_watched(self._user))

    def apply_layout(self, *, alike: bool = True, watched: bool = False) -> None:  # noqa: ARG002  # the protocol's
        """Everything is where it belongs."""
        if watched and not self.watched and self.stepped is not self._user:
            _log.info(
                "somebody watches the optimizer's step (a hook, or a step put in its place): optim.optimizer "
                "itself is stepped from here on, which is slower than the kernel chosen for it"
            )
        self.watched = watched
        self._blocks = None
        if self._twin is not None and not is_laid_for_fused(self._own, self._user.state):
            self._unfuse()

    def blocks(self) -> list[Tensor]:
        """The gradients there are; of a sparse one its values, of a sharded one this rank's part."""
        if self._blocks is None:
            self._blocks = [self._block(p, p.grad) for p in self._own if p.grad is not None]
        return self._blocks

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and gradient of each parameter that has one."""
        self.blocks()  # sparse ones are coalesced there
        return [pair_of(p, p.grad) for p in self._own if p.grad is not None]

    def present(self) -> int:
        """How many parameters have a gradient."""
        return len(self.blocks())

    def missing(self) -> list[str]:
        """Canonical names of the trainable parameters that have no gradient."""
        return [name for name, p in self._named.items() if p.requires_grad and p.grad is None]

    def by_name(self) -> dict[str, Tensor]:
        """Canonical parameter name -> gradient, for those that have one."""
        return {name: p.grad for name, p in self._named.items() if p.grad is not None}

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""
        self._blocks = None
        for name, parameter in self._named.items():
            saved = gradients.get(name)
            moved = None if saved is None else saved.detach().clone().to(parameter.device, parameter.dtype)
            parameter.grad = moved

    def clear(self) -> None:
        """Forget all gradients; the memory goes back to the allocator, or to the next backward."""
        self._blocks = None
        for parameter in self.parameters:
            parameter.grad = None

    def arrangement(self) -> list[Any] | None:
        """None: nothing lies beside anything."""
        return None

    def arrange(self, arrangement: Sequence[Any] | None) -> None:
        """There is nothing to arrange."""

    def release(self) -> None:
        """It has all state."""

    def loosen(self) -> None:
        """It is."""

    def _unfuse(self) -> None:
        """No fused kernel takes what is there: step the user's optimizer, which asks for none."""
        self._twin = None

    def _block(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        if gradient.is_sparse:
            self._unfuse()
            parameter.grad = gradient = gradient.coalesce()
            return gradient.values()
        return local(gradient)


def pair_of(parameter: nn.Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A weight and its gradient; of a sparse one, the rows that it has, which is as many copies."""
    if not gradient.is_sparse:
        return parameter.detach(), gradient
    return parameter.detach()[tuple(gradient.indices())], gradient.values()


def _singles(parameters: Sequence[nn.Parameter]) -> list[int]:
    """Which have one element: two of these can be compared, and be equal."""
    return [i for i, p in enumerate(parameters) if not is_lazy(p) and p.numel() == 1]
