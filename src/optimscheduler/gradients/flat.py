"""Small parameters side by side in buffers, so that an update pays for memory and hardly per tensor.

The small parameters move together at once, before any graph looks at them, and the optimizer steps over
`[buffer, large, large, ...]`.

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
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_pre_hooks

from optimscheduler.gradients.buffer import Buffer
from optimscheduler.gradients.loose import Loose
from optimscheduler.gradients.suited import SCALARS, suited

__all__ = ["LARGEST", "Flat"]

LARGEST: Final = 32768
"""Elements of the largest tensor that goes into a buffer: beyond it, zeroing a gradient and adding to it
costs more than a tensor of its own. Measured; see docs/performance.md."""

_TRIES: Final = 8  # updates in which a parameter that could not move is looked at again

_log = logging.getLogger("optimscheduler")

State = dict[str, Any]  # Any: what an optimizer keeps about one parameter


class Flat(Loose):
    """The fast layout, for element-wise optimizers.

    Args:
        groups: canonical name -> parameter, for each group of the optimizer.
        optimizer: over these groups; its groups and state are rearranged.
        model: that the parameters belong to, with others perhaps.
    """

    bit_for_bit = False

    def __init__(
        self, groups: Sequence[Mapping[str, nn.Parameter]], optimizer: Optimizer, model: nn.Module
    ) -> None:
        super().__init__({name: p for group in groups for name, p in group.items()})
        self._optimizer = optimizer
        self._model = model
        self._groups = [list(group.values()) for group in groups]
        self._group_of = {p: i for i, group in enumerate(self._groups) for p in group}
        self._scalars = SCALARS[type(optimizer)]
        self._buffers: list[Buffer] = []
        self._small = {p for p in self.parameters if p.numel() <= LARGEST}  # that may be in a buffer
        self._waiting = self._all_small()  # to be looked at in the next update
        self._tries = _TRIES
        self._ready: list[nn.Parameter] = []  # of those waiting: that may receive gradients
        self._fit: list[nn.Parameter] = []  # of those ready: that nobody else looks at
        self._doubt: str | None = None
        self._places = 0  # stands for who lies where
        self.moved_elsewhere: list[nn.Parameter] = []
        self._take_charge()
        self._lay()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy: its parameters have memory of their own, its optimizer knows nothing of it yet."""
        self.__dict__.update(state)
        self._take_charge()
        self.loosen()

    def _take_charge(self) -> None:
        """Let the optimizer answer as if it were over the model's parameters."""
        self._optimizer.zero_grad = self._zero_grad  # type: ignore[method-assign]
        self._optimizer.register_state_dict_post_hook(self._state_dict)
        self._optimizer.register_load_state_dict_pre_hook(lambda *_: self.loosen())

    def _all_small(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters if parameter in self._small]

    def __str__(self) -> str:
        if not self._buffers:
            return f"{len(self._small)} of {len(self.parameters)} tensors are small and will lie side by side"
        flat, buffers = len(self.moved_elsewhere), len(self._buffers)
        return f"{flat} of {len(self.parameters)} tensors lie side by side in {buffers}"

    # ---- around an update ----

    def outlook(self) -> int:
        """Look at what was done to the model; the number stands for what `settle` will make of it."""
        if not (self._optimizer.state or self._are_whole()):
            self.loosen()  # moved before the first update, as by .to(device): move after them
        self._doubt = self._find_doubt()
        self._ready = [] if self._doubt else [p for p in self._waiting if p.requires_grad]
        self._fit = suited(self._ready, self._model) if self._ready else []
        if not (self._fit or self._doubt):
            return self._places
        order = {parameter: i for i, parameter in enumerate(self.parameters)}
        return _number_for((self._places, bool(self._doubt), *(order[p] for p in self._fit)))

    def _are_whole(self) -> bool:
        return all(buffer.is_whole() for buffer in self._buffers)

    def _find_doubt(self) -> str | None:
        """Why nothing should lie side by side any more."""
        if not self._are_whole():
            return "a parameter was moved to other memory: .to(), .half(), p.data = ..."
        if self._small and (self._optimizer._optimizer_step_pre_hooks or _global_optimizer_pre_hooks):
            return "a hook before the optimizer's step may change gradients"
        return None

    def settle(self, *, alike: bool = True) -> None:
        """Put every parameter where `outlook` has seen it fit, and bring the gradients along."""
        super().settle(alike=alike)
        if self._doubt or (self._small and not alike):
            self._give_up(self._doubt or "the parameters of another rank do not lie as they do here")
        for buffer in list(self._buffers):
            if unfit := buffer.gather():
                self._dismiss(buffer, unfit)
        if self._ready:
            self._admit()

    def blocks(self) -> list[Tensor]:
        """The buffers' gradients, and those on their own that there are."""
        if self._blocks is None:
            self._blocks = [buffer.gradient for buffer in self._buffers] + super().blocks()
        return self._blocks

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""
        self.loosen()
        super().restore(gradients)

    def _zero_grad(self, set_to_none: bool = True) -> None:
        """`optimizer.zero_grad` for the parameters that it does not see, too."""
        type(self._optimizer).zero_grad(self._optimizer, set_to_none)
        for parameter in self.moved_elsewhere:
            if parameter.grad is not None:
                parameter.grad = None if set_to_none else torch.zeros_like(parameter.grad)

    # ---- who lies where ----

    def arrangement(self) -> dict[str, Any] | None:
        """Who lies in which buffer, and who may still come, by name."""
        names = {parameter: name for name, parameter in self._named.items()}
        return {
            "together": [[names[parameter] for parameter in buffer.parameters] for buffer in self._buffers],
            "waiting": [names[parameter] for parameter in self._waiting],
            "tries": self._tries,
        }

    def arrange(self, arrangement: Mapping[str, Any] | None) -> None:
        """Lay parameters as they lay in a saved run of this layout, as far as they can."""
        if arrangement is None:
            self._lay()
            return
        for names in arrangement["together"]:
            here = [self._named[name] for name in names if name in self._named]
            self._bring_together(suited([p for p in here if p in self._small], self._model))
        self._waiting = [self._named[name] for name in arrangement["waiting"] if name in self._named]
        self._tries = arrangement["tries"]

    def _lay(self) -> None:
        """Bring together those that may; who then turns out to have no gradient, leaves."""
        self._bring_together(suited([p for p in self._waiting if p.requires_grad], self._model))
        placed = set(self.moved_elsewhere)
        self._waiting = [p for p in self._waiting if p not in placed]

    def loosen(self) -> None:
        """Give every parameter optimizer state of its own, until the next update; it stays where it is."""
        buffers, self._buffers = self._buffers, []
        self._waiting, self._tries = self._all_small(), _TRIES
        self._unpack(buffers)

    def _give_up(self, reason: str) -> None:
        self.loosen()
        self._small, self._waiting, self._ready = set(), [], []
        _log.warning("layout: loose from here on, every tensor on its own: %s", reason)

    def _dismiss(self, buffer: Buffer, unfit: Sequence[nn.Parameter]) -> None:
        """These are stepped over on their own; the others stay where they are, in pieces."""
        self._small -= {p for p in unfit if p.requires_grad}
        self._waiting += [p for p in unfit if not p.requires_grad]
        at = self._buffers.index(buffer)
        state = self._optimizer.state.get(buffer.leaf, {})
        pieces = buffer.without(set(unfit))
        for piece, place in pieces:
            piece.gather()
            self._optimizer.state[piece.leaf] = {
                key: _copied(value) if self._is_shared(key, value) else value[place]
                for key, value in state.items()
            }
        self._buffers[at : at + 1] = [piece for piece, _ in pieces]
        self._unpack([buffer])

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
            alike[*key, *self._situation(parameter)].append(parameter)
        together = [self._pack(same) for same in alike.values() if len(same) > 1]
        self._buffers += together
        self._write_groups()
        return together

    def _write_groups(self) -> None:
        """Tell the optimizer what to step over."""
        self._blocks = None
        self.moved_elsewhere = [p for buffer in self._buffers for p in buffer.parameters]
        order = {parameter: i for i, parameter in enumerate(self.parameters)}
        self._places = _number_for(tuple(tuple(order[p] for p in b.parameters) for b in self._buffers))
        inside = set(self.moved_elsewhere)
        self._own = [p for p in self.parameters if p not in inside]
        for i, own in enumerate(self._groups):
            leaves = [b.leaf for b in self._buffers if self._group_of[b.parameters[0]] == i]
            self._optimizer.param_groups[i]["params"] = leaves + [p for p in own if p not in inside]

    # ---- the optimizer's state ----

    def _state_dict(self, *_: object) -> State:
        """What `optimizer.state_dict()` would give were it over `parameters`; tensors may be views."""
        states = {p: dict(self._optimizer.state[p]) for p in self._own if p in self._optimizer.state}
        for buffer in self._buffers:
            states |= {p: own for p, own in zip(buffer.parameters, self._split(buffer), strict=True) if own}
        index = {p: i for i, p in enumerate(self.parameters)}
        groups = [
            {**group, "params": [index[p] for p in own]}
            for group, own in zip(self._optimizer.param_groups, self._groups, strict=True)
        ]
        state = {i: states[p] for p, i in index.items() if p in states}
        return {"state": state, "param_groups": groups}

    def _situation(self, parameter: nn.Parameter) -> Iterable[object]:
        """What must be the same for all parameters of a buffer."""
        for key, value in sorted(self._optimizer.state.get(parameter, {}).items()):
            if self._is_shared(key, value):
                yield key, value.item() if isinstance(value, Tensor) else value
            else:
                yield key, value.dtype

    def _is_shared(self, key: str, value: object) -> bool:
        """Whether an entry of the optimizer's state is kept once for a tensor, not for each element."""
        return key in self._scalars or not isinstance(value, Tensor)

    @torch.no_grad()
    def _pack(self, parameters: Sequence[nn.Parameter]) -> Buffer:
        buffer = Buffer.around(parameters)
        states = [self._optimizer.state.pop(p, {}) for p in buffer.parameters]
        together: State = {}
        for key, first in states[0].items():
            if self._is_shared(key, first):
                together[key] = _copied(first)
            else:
                together[key] = torch.zeros_like(buffer.leaf, dtype=first.dtype, device=first.device)
                torch._foreach_copy_(buffer.beside(together[key]), [state[key] for state in states])
        if together:
            self._optimizer.state[buffer.leaf] = together
        return buffer

    def _unpack(self, buffers: Sequence[Buffer]) -> None:
        """Buffers that are in use no longer: what is in no other one gets optimizer state of its own."""
        inside = {parameter for buffer in self._buffers for parameter in buffer.parameters}
        for buffer in buffers:
            states = self._split(buffer)
            self._optimizer.state.pop(buffer.leaf, None)
            for parameter, state in zip(buffer.parameters, states, strict=True):
                if state and parameter not in inside:
                    self._optimizer.state[parameter] = {k: _copied(v) for k, v in state.items()}
        self._write_groups()
        for buffer in buffers:
            buffer.dissolve()

    def _split(self, buffer: Buffer) -> list[State]:
        """The optimizer's state about each parameter of a buffer: views, and copies of what is kept once."""
        together: State = self._optimizer.state.get(buffer.leaf, {})
        states: list[State] = [{} for _ in buffer.parameters]
        for key, value in together.items():
            views = None if self._is_shared(key, value) else buffer.beside(value)
            for i, state in enumerate(states):
                state[key] = views[i] if views else _copied(value)
        return states


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _number_for(places: tuple[object, ...]) -> int:
    """The same in every process, and exact as a float; 0 for no places at all. Of numbers only."""
    return hash(places) & 0xFFFFFFFFFFFF if places else 0
