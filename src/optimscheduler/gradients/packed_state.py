"""The state of packed parameters: it lies in the twin, and the user's optimizer shows it.

What an optimizer keeps for each element lies beside its buffer in one tensor, and is shown as views of it.
What it keeps once for a tensor (`step`) is one number for a buffer, and is shown as the elements of a row,
one for each parameter; the row is brought up to date after an update, and its version tells whether somebody
else has written to it. What others do to the state that is shown is taken over before the next update.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import is_

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler._torch_compat import copy_all_, holders_of, takes_scale, version_of
from optimscheduler.gradients.buffer import Buffer
from optimscheduler.gradients.packable import SCALARS
from optimscheduler.gradients.shown import ShownState, State

__all__ = ["PackedState"]


@dataclass(slots=True)
class _Row:
    """A number kept once per buffer, as it is shown: shape (parameters of the buffer,)."""

    values: Tensor
    version: int | None  # as we have left it
    left: Tensor  # what we have left, on a CPU: `.data` and numpy write without a trace


class PackedState:
    """The state of `inner`, whose parameters are buffers and parameters on their own.

    Args:
        user: the user's optimizer. Its state is taken over; from then on it shows what `inner` has.
        inner: its twin.
    """

    def __init__(self, user: Optimizer, inner: Optimizer) -> None:
        self.inner = inner
        self._user_of = weakref.ref(user)  # which holds what it shows, and so this
        self._once = SCALARS[type(user)]
        self._buffers: list[Buffer] = []
        self._own: list[nn.Parameter] = []
        self._rows: dict[Buffer, dict[str, _Row]] = {}
        self._entries: list[object] = []  # of the state shown of packed parameters,
        self._addresses: list[int] = []  # and where they lie
        self._count = 0  # of the states of `inner` when it was shown
        self._others: dict[Tensor, State] = {}  # what the user's optimizer keeps for other tensors
        self._show(ShownState(self._fill, self))

    def lie(self, buffers: Sequence[Buffer], own: Sequence[nn.Parameter]) -> None:
        """Say what lies packed and what on its own from now on."""
        self._buffers, self._own = list(buffers), list(own)
        self._rows = {buffer: self._rows.get(buffer, {}) for buffer in buffers}
        if self._shown.is_open:
            self._fill()

    # ---- where it lies ----

    def situation(self, parameter: nn.Parameter) -> tuple[object, ...]:
        """What must be the same for all parameters of a buffer; of one on its own."""
        return self._situation_of(parameter, self.inner.state.get(parameter, {}))

    def pack(self, buffer: Buffer) -> None:
        """The state of these parameters, in the same situation, goes into tensors beside their buffer."""
        self._put(buffer, [self.inner.state.pop(p, {}) for p in buffer.parameters])

    def split(self, buffer: Buffer, pieces: Sequence[tuple[Buffer, slice]]) -> None:
        """A buffer is cut into pieces that lie where they lay; the parameters between get their own state."""
        together = self.inner.state.get(buffer.leaf, {})
        for piece, place in pieces if together else ():
            self.inner.state[piece.leaf] = {
                key: _copied(value) if self._is_once(key, value) else value[place]
                for key, value in together.items()
            }
        inside = {p for piece, _ in pieces for p in piece.parameters}
        self.unpack(buffer, [p for p in buffer.parameters if p not in inside])

    def unpack(self, buffer: Buffer, parameters: Sequence[nn.Parameter]) -> None:
        """A buffer is no longer in use: these parameters of it have state of their own, where it lies."""
        wanted = set(parameters)
        for parameter, state in zip(buffer.parameters, self._views(buffer), strict=True):
            if state and parameter in wanted:
                self.inner.state[parameter] = state
        self.inner.state.pop(buffer.leaf, None)

    def _situation_of(self, parameter: nn.Parameter, state: Mapping[str, object]) -> tuple[object, ...]:
        found: list[object] = []
        for key, value in sorted(state.items()):
            if self._is_once(key, value) and isinstance(value, Tensor | Hashable):
                found += key, value.item() if isinstance(value, Tensor) else value
            elif isinstance(value, Tensor) and value.shape == parameter.shape:
                found += key, value.dtype, value.device
            else:
                found += key, id(parameter)  # which no other parameter has
        return tuple(found)

    def _is_once(self, key: str, value: object) -> bool:
        """Whether an entry is kept once for a tensor, not for each element."""
        return key in self._once or not isinstance(value, Tensor)

    @property
    def _shown(self) -> ShownState:
        """What the user's optimizer shows; one that nobody sees where that has another state."""
        shown = self._shown_of()
        return ShownState(lambda: None) if shown is None else shown

    def _show(self, shown: ShownState) -> None:
        self._shown_of = weakref.ref(shown)  # the user's optimizer holds it, and it holds this

    @property
    def _user(self) -> Optimizer:
        user = self._user_of()
        assert user is not None  # whoever steps has it
        return user

    @torch.inference_mode(False)
    @torch.no_grad()
    def _put(self, buffer: Buffer, states: Sequence[State]) -> None:
        """The state of the parameters of a buffer; where it lies beside the buffer already, it stays."""
        before, together = self.inner.state.pop(buffer.leaf, {}), {}
        for key, value in states[0].items():
            if self._is_once(key, value):
                together[key] = self._for_all(value, buffer.leaf.device)
                continue
            row = before.get(key)
            views = [state[key] for state in states]
            if row is None or row.dtype is not value.dtype or not _lie_at(views, buffer.beside(row)):
                row = torch.zeros_like(buffer.leaf, dtype=value.dtype, device=value.device)
                copy_all_(buffer.beside(row), views)  # the memory of before may still be shown to somebody
            together[key] = row
        if together:
            self.inner.state[buffer.leaf] = together

    def _for_all(self, value: object, device: torch.device) -> object:
        """A number that is kept once, on the device where the fused kernel wants it."""
        if not isinstance(value, Tensor):
            return value
        return value.clone().to(device) if takes_scale(self.inner) else value.clone()

    # ---- what is shown ----

    def after_step(self) -> None:
        """Bring what is shown up to date."""
        shown = self._shown_of()
        if shown is not None and shown.is_open and len(self.inner.state) != self._count:
            self._fill()  # the update has made state
        for buffer, rows in self._rows.items():
            for key, row in rows.items():
                row.values.copy_(self.inner.state[buffer.leaf][key])
                row.version = version_of(row.values)
                if row.values.device.type == "cpu":
                    row.left.copy_(row.values)

    def _fill(self) -> None:
        """Show the state of every parameter. A dict that was shown stays the same: somebody may hold it."""
        before = dict(dict.items(self._shown))
        states = {p: self.inner.state[p] for p in self._own if p in self.inner.state}
        for buffer in self._buffers:
            states |= {p: s for p, s in zip(buffer.parameters, self._views(buffer), strict=True) if s}
        dict.clear(self._shown)
        for parameter in {**self._mine(), **dict.fromkeys(self._packed()), **dict.fromkeys(self._own)}:
            held, state = before.pop(parameter, None), states.get(parameter)
            if held is not None and state is not None and held is not state:
                held.clear()
                held.update(state)
                if parameter in self.inner.state:
                    self.inner.state[parameter] = held
            shown = state if held is None else held
            if shown is not None:
                dict.__setitem__(self._shown, parameter, shown)
        dict.update(self._shown, {**self._others, **before})
        self._count = len(self.inner.state)
        self._entries = self._packed_entries()
        self._addresses = list(map(_address, self._entries))

    def _views(self, buffer: Buffer) -> list[State]:
        """The state of each parameter of a buffer."""
        return self._views_of(buffer, self.inner.state.get(buffer.leaf, {}))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _views_of(self, buffer: Buffer, together: State) -> list[State]:
        states: list[State] = [{} for _ in buffer.parameters]
        rows = self._rows.setdefault(buffer, {})
        for key, value in together.items():
            each: Sequence[object]
            if not isinstance(value, Tensor):
                each = [value] * len(states)
            elif self._is_once(key, value):
                if key not in rows:
                    values = value.detach().expand(len(states)).clone()
                    rows[key] = _Row(values, version_of(values), values.clone())
                each = rows[key].values.unbind()
            else:
                each = buffer.beside(value)
            for state, part in zip(states, each, strict=True):
                state[key] = part
        return states

    def _mine(self) -> dict[nn.Parameter, None]:
        user = self._user_of()
        groups = [] if user is None else user.param_groups
        return dict.fromkeys(p for group in groups for p in group["params"])

    def _packed(self) -> list[nn.Parameter]:
        return [parameter for buffer in self._buffers for parameter in buffer.parameters]

    def _packed_entries(self) -> list[object]:
        shown = (dict.get(self._shown, parameter, {}) for parameter in self._packed())
        return list(chain.from_iterable(map(dict.values, shown)))

    # ---- what others do to it ----

    def is_foreign(self) -> bool:
        """Whether somebody else has stepped, loaded, replaced or reset state since the last update."""
        user, shown = self._user_of(), self._shown_of()
        if shown is None or user is None or user.state is not shown or shown.by is not self:
            return True
        if self._is_counted():
            return True
        if not shown.is_open:
            return False
        if self._is_replaced():
            return True
        self._close_if_unheld()
        return False

    def _is_replaced(self) -> bool:
        entries = self._packed_entries()
        if len(entries) != len(self._entries) or not all(map(is_, entries, self._entries)):
            return True
        if list(map(_address, entries)) != self._addresses:
            return True
        return any(dict.get(self._shown, p) is not self.inner.state.get(p) for p in self._own)

    def _is_counted(self) -> bool:
        rows = chain.from_iterable(map(dict.values, self._rows.values()))
        return any(
            row.version is None or version_of(row.values) != row.version or _differs(row) for row in rows
        )

    def _close_if_unheld(self) -> None:
        """Nobody can change what is shown unheard: forget it, so that looking at it again costs nothing."""
        if self._shown.is_held(self._packed()):
            return
        self._others = {p: state for p, state in dict.items(self._shown) if p not in self._mine()}
        self._entries = []
        self._shown.close()
        for rows in self._rows.values():
            for key in [key for key, row in rows.items() if _is_unheld(row.values)]:
                del rows[key]

    def adopt(self) -> list[Buffer]:
        """Take over the state as the user's optimizer has it now.

        Returns:
            The buffers whose parameters are no longer in one situation; each of these has its own state.
        """
        theirs = self._user.state
        if theirs is not self._shown and self._shown.by is self:
            self._shown.freeze()  # somebody may hold it, and put it back
        states = {p: state for p, state in theirs.items() if state}
        differing: list[Buffer] = []
        for buffer in self._buffers:
            of_buffer = [states.get(p, {}) for p in buffer.parameters]
            if len(set(map(self._situation_of, buffer.parameters, of_buffer))) == 1:
                self._put(buffer, of_buffer)
            else:
                differing.append(buffer)
                self.inner.state.pop(buffer.leaf, None)
        self._rows = {buffer: {} for buffer in self._buffers if buffer not in differing}
        self._buffers = list(self._rows)
        packed = set(self._packed())
        apart = {**self._mine(), **dict.fromkeys(self._own)}  # some of these may have left the groups
        apart |= {parameter: None for buffer in differing for parameter in buffer.parameters}
        self._own = [parameter for parameter in apart if parameter not in packed]
        for parameter in self._own:
            self.inner.state.pop(parameter, None)
            if parameter in states:
                self.inner.state[parameter] = states[parameter]
        if not isinstance(theirs, ShownState):
            shown = ShownState(self._fill, self)
            dict.update(shown, theirs)
            self._user.state = theirs = shown
        elif theirs.by is not self:
            theirs.serve(self._fill, self)
        if theirs is not self._shown:
            self._show(theirs)
            self._others = {}
        self._shown.is_open = True
        self._fill()
        return differing


def _lie_at(tensors: Sequence[Tensor], views: Sequence[Tensor]) -> bool:
    """Whether these are those views of ours."""
    return all(map(_are_one_memory, tensors, views))


def _are_one_memory(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.stride() == other.stride()


def _address(entry: object) -> int:
    return entry.data_ptr() if isinstance(entry, Tensor) else 0


def _differs(row: _Row) -> bool:
    """Whether somebody has written to it."""
    if row.version is None or version_of(row.values) != row.version:
        return True
    return row.values.device.type == "cpu" and not torch.equal(row.values, row.left)


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _is_unheld(tensor: Tensor) -> bool:
    """Whether nobody has a view of it."""
    return _ALONE is not None and holders_of(tensor.untyped_storage()) == _ALONE


def _holders_of_one_tensor() -> int | None:
    alone = torch.zeros(1)
    return holders_of(alone.untyped_storage())


_ALONE = _holders_of_one_tensor()
