"""Small parameters side by side in buffers, so that an update pays for memory and hardly per tensor.

The small parameters move together at once, before any graph looks at them, and a twin of the user's optimizer
steps over `[buffer, large, large, ...]`.

Their gradients are what they always are, and are copied together once per update: that costs less than to
let autograd add each of them to memory of our choice. A parameter without gradient leaves its buffer, because
torch would pass over it; a parameter that was moved elsewhere takes the layout back, once, keeping all state.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from optimscheduler._torch_compat import let_take_scale
from optimscheduler.gradients.buffer import Buffer
from optimscheduler.gradients.packable import packable
from optimscheduler.gradients.packed_state import PackedState
from optimscheduler.gradients.per_tensor import LayoutPlan, PerTensor, pair_of
from optimscheduler.gradients.shown import ShownState
from optimscheduler.gradients.stored_tensor import StoredTensor, itself
from optimscheduler.gradients.twin import is_laid_for_fused, is_watched, take_settings, twin_of
from optimscheduler.scalars import Flag

__all__ = ["LARGEST_PACKED", "Packed"]

LARGEST_PACKED: Final = 32768
"""Elements of the largest tensor that goes into a buffer: beyond it, zeroing a gradient and adding to it
costs more than a tensor of its own. Measured; see docs/performance.md."""

_TRIES: Final = 8  # updates in which a parameter that could not move is looked at again

_MOVED: Final = "a parameter was moved to other memory: .to(), .half(), p.data = ..."

_log = logging.getLogger("optimscheduler")


class Packed(PerTensor):
    """The fast layout, for element-wise optimizers.

    Args:
        groups: canonical name -> parameter, for each group of the optimizer.
        optimizer: the user's, over these groups.
        model: that the parameters belong to, with others perhaps.
        fused: let the twin use the fused kernel.
    """

    bit_for_bit = False

    def __init__(
        self,
        groups: Sequence[Mapping[str, nn.Parameter]],
        optimizer: Optimizer,
        model: nn.Module,
        *,
        fused: bool = False,
    ) -> None:
        super().__init__({name: p for group in groups for name, p in group.items()}, optimizer)
        self._fused = fused
        self._model = model
        self._groups = [list(group.values()) for group in groups]
        self._group_of = {p: i for i, group in enumerate(self._groups) for p in group}
        self._small = {
            p for p in self.parameters if not is_lazy(p) and p.numel() <= LARGEST_PACKED
        }  # may be packed
        self.moved_elsewhere: list[nn.Parameter] = []
        self._begin()
        self._lay()

    def _begin(self) -> None:
        """With nothing packed, and the state as the user's optimizer has it."""
        self._packed = twin_of(self._user, fused=self._fused)
        self._state = PackedState(self._user, self._packed)
        self._buffers: list[Buffer] = []
        self._waiting = self._all_small()  # to be looked at in the next update
        self._tries = _TRIES
        self._ready: list[nn.Parameter] = []  # of those waiting: that may receive gradients
        self._fit: list[nn.Parameter] = []  # of those ready: that nobody else looks at
        self._doubt: str | None = None
        self._places = 0  # stands for who lies where
        self._write_groups()
        self._state.adopt()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is packed: the parameters of a copy have memory of their own."""
        return {
            key: value for key, value in vars(self).items() if key not in ("_packed", "_state", "_buffers")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, whose parameters come together at its next update."""
        self.__dict__.update(state)
        self._begin()

    def stored_tensors(self) -> list[StoredTensor]:
        """The buffers, and every other parameter on its own."""
        names = {parameter: name for name, parameter in self._named.items()}
        together = [
            StoredTensor(b.leaf.data, [names[p] for p in b.parameters], b.beside) for b in self._buffers
        ]
        return together + [StoredTensor(parameter, [names[parameter]], itself) for parameter in self._own]

    def _all_small(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters if parameter in self._small]

    def __str__(self) -> str:
        if not self._buffers:
            return f"{len(self._small)} of {len(self.parameters)} tensors are small and will lie side by side"
        flat, buffers = len(self.moved_elsewhere), len(self._buffers)
        return f"{flat} of {len(self.parameters)} tensors lie side by side in {buffers}"

    # ---- the optimizers ----

    @property
    def stepped(self) -> Optimizer:
        """The twin over the buffers, or the user's optimizer where that is watched."""
        return self._user if self.watched else self._packed

    def before_step(self) -> None:
        """The groups have their numbers: hand them to the twin."""
        if not self.watched:
            take_settings(self._packed, self._user)

    def after_step(self, moved: Flag = True) -> None:
        """The twin has made, or moved, state."""
        if not self.watched:
            self._state.after_step()
        if "step" in vars(self._user):
            super().after_step(moved)

    # ---- around an update ----

    def plan_layout(self) -> LayoutPlan:
        """Look at what was done to model and optimizer: what will `apply_layout` make of it?"""
        watched = is_watched(self._user)
        if not (self._packed.state or self._are_whole()):
            self.loosen()  # moved before the first update, as by .to(device): move after them
        if not watched and self._state.is_foreign():
            self._follow()
        self._doubt = None if self._are_whole() else _MOVED
        self._ready = (
            [p for p in self._waiting if p.requires_grad] if self._waiting and not self._doubt else []
        )
        self._fit = packable(self._ready, self._model) if self._ready else []
        if not (self._fit or self._doubt):
            return LayoutPlan(self._places, watched) if watched else self._usual
        order = {parameter: i for i, parameter in enumerate(self.parameters)}
        places = (self._places, bool(self._doubt), *(order[p] for p in self._fit))
        return LayoutPlan(_number_for(places), watched)

    def _follow(self) -> None:
        """Take over what others have done to the state; those that differ now, leave their buffer."""
        differing = self._state.adopt()
        if differing:
            self._buffers = [buffer for buffer in self._buffers if buffer not in differing]
            self._waiting += [p for buffer in differing for p in buffer.parameters]
            self._tries = max(self._tries, 1)
            self._write_groups()
            for buffer in differing:
                buffer.dissolve()

    def _are_whole(self) -> bool:
        return False not in [buffer.is_whole() for buffer in self._buffers]

    def apply_layout(self, *, alike: bool = True, watched: bool = False) -> None:
        """Put every parameter where `plan_layout` has seen it fit, and bring the gradients along."""
        super().apply_layout(alike=alike, watched=watched)
        if self._doubt or (self._small and not alike):
            self._give_up(self._doubt or "the parameters of another rank do not lie as they do here")
        if watched:
            return
        for buffer in list(self._buffers):
            if unfit := buffer.gather():
                self._dismiss(buffer, unfit)
        if self._ready:
            self._admit()
        if self._fused and not is_laid_for_fused(self._own, self._packed.state):
            self._unfuse()

    def blocks(self) -> list[Tensor]:
        """The buffers' gradients, and those on their own that there are."""
        if self._blocks is None:
            packed = [] if self.watched else [buffer.gradient for buffer in self._buffers]
            own = self.parameters if self.watched else self._own
            self._blocks = packed + [self._block(p, p.grad) for p in own if p.grad is not None]
        return self._blocks

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and gradient of each parameter that has one; where it lies in a buffer, views of it."""
        own = self.parameters if self.watched else self._own
        return [
            (p.detach(), gradient)
            for buffer in ([] if self.watched else self._buffers)
            for p, gradient in zip(buffer.parameters, buffer.beside(buffer.gradient), strict=True)
        ] + [pair_of(p, p.grad) for p in own if p.grad is not None]

    def present(self) -> int:
        """How many parameters have a gradient."""
        packed = 0 if self.watched else len(self.moved_elsewhere) - len(self._buffers)
        return packed + len(self.blocks())

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""
        self.loosen()
        super().restore(gradients)

    def _unfuse(self) -> None:
        """No fused kernel takes what is there."""
        if self._fused:
            self._fused = False
            let_take_scale(self._packed, fused=False)

    # ---- who lies where ----

    def arrangement(self) -> list[Any] | None:
        """Who lies in which buffer, who may still come, by name, and how often that is tried."""
        names = {parameter: name for name, parameter in self._named.items()}
        together = [[names[parameter] for parameter in buffer.parameters] for buffer in self._buffers]
        return [together, [names[parameter] for parameter in self._waiting], self._tries]

    def arrange(self, arrangement: Sequence[Any] | None) -> None:
        """Lay parameters as they lay in a saved run of this layout, as far as they can."""
        if arrangement is None:
            self._lay()
            return
        if isinstance(arrangement, Mapping):  # as states had it once
            arrangement = list(arrangement.values())
        together, waiting, self._tries = arrangement
        for names in together:
            here = [self._named[name] for name in names if name in self._named]
            self._bring_together(packable([p for p in here if p in self._small], self._model))
        self._waiting = [self._named[name] for name in waiting if name in self._named]

    def _lay(self) -> None:
        """Bring together those that may; who then turns out to have no gradient, leaves."""
        self._bring_together(packable([p for p in self._waiting if p.requires_grad], self._model))
        placed = set(self.moved_elsewhere)
        self._waiting = [p for p in self._waiting if p not in placed]

    def loosen(self) -> None:
        """Give every parameter optimizer state of its own, until the next update; it stays where it is."""
        if self._state.is_foreign():
            self._follow()
        buffers, self._buffers = self._buffers, []
        self._waiting, self._tries = self._all_small(), _TRIES
        for buffer in buffers:
            self._state.unpack(buffer, buffer.parameters)
        self._write_groups()
        for buffer in buffers:
            buffer.dissolve()

    def release(self) -> None:
        """Give the user's optimizer all state, for good: somebody else takes over."""
        self.loosen()
        if isinstance(self._user.state, ShownState):
            self._user.state.freeze()

    def _give_up(self, reason: str) -> None:
        self.loosen()
        self._small, self._waiting, self._ready = set(), [], []
        _log.warning("layout: loose from here on, every tensor on its own: %s", reason)

    def _dismiss(self, buffer: Buffer, unfit: Sequence[nn.Parameter]) -> None:
        """These are stepped over on their own; the others stay where they are, in pieces."""
        self._small -= {p for p in unfit if p.requires_grad}
        self._waiting += [p for p in unfit if not p.requires_grad]
        at = self._buffers.index(buffer)
        pieces = buffer.without(set(unfit))
        self._state.split(buffer, pieces)
        self._buffers[at : at + 1] = [piece for piece, _ in pieces]
        self._write_groups()
        for piece, _ in pieces:
            piece.gather()
        buffer.dissolve()

    def _admit(self) -> None:
        """Those that are ready, fit and have a gradient come together; the others stay on their own."""
        ready = set(self._ready)
        self._small -= {p for p in ready if p.grad is None}
        fit = [p for p in self._fit if p.grad is not None and p.grad.layout is torch.strided]
        for buffer in self._bring_together(fit):
            buffer.gather()
        self._waiting = [p for p in self._waiting if p not in ready]
        self._tries -= 1
        if self._tries > 0:  # somebody may have let go of them by then
            placed = set(self.moved_elsewhere)
            self._waiting += [p for p in self._ready if p.grad is not None and p not in placed]
        _log.debug("layout: %s", self)

    def _bring_together(self, parameters: Iterable[nn.Parameter]) -> list[Buffer]:
        """Put these into buffers, with others of their group whose optimizer state is alike."""
        alike: dict[tuple[object, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            key = (self._group_of[parameter], parameter.device, parameter.dtype)
            alike[*key, *self._state.situation(parameter)].append(parameter)
        together = [Buffer.around(same) for same in alike.values() if len(same) > 1]
        for buffer in together:
            self._state.pack(buffer)
        self._buffers += together
        self._write_groups()
        return together

    def _write_groups(self) -> None:
        """Tell the twin what to step over."""
        self._blocks, self.laid = None, object()
        self.moved_elsewhere = [p for buffer in self._buffers for p in buffer.parameters]
        order = {parameter: i for i, parameter in enumerate(self.parameters)}
        self._places = _number_for(tuple(tuple(order[p] for p in b.parameters) for b in self._buffers))
        self._usual = LayoutPlan(self._places, watched=False)
        inside = set(self.moved_elsewhere)
        self._own = [p for p in self.parameters if p not in inside]
        for i, own in enumerate(self._groups):
            leaves = [b.leaf for b in self._buffers if self._group_of[b.parameters[0]] == i]
            self._packed.param_groups[i]["params"] = leaves + [p for p in own if p not in inside]
        self._state.lie(self._buffers, self._own)


def _number_for(places: tuple[object, ...]) -> int:
    """The same in every process, and exact as a float; 0 for no places at all. Of numbers only."""
    return hash(places) & 0xFFFFFFFFFFFF if places else 0
