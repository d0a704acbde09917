"""`OptimSchedulerDict`: the OptimSchedulers of one model, by name, stepped by one call."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.backward.losses import by_name
from optimscheduler.checks import one_of
from optimscheduler.errors import CheckpointError, ConfigError, ParameterError
from optimscheduler.line.step import BatchStep, Timer, untimed
from optimscheduler.line.together import sets_of
from optimscheduler.reports.ledger import StepReport
from optimscheduler.scalars import Scalar
from optimscheduler.sync import sync_for
from optimscheduler.written import ClipTogether, OnMismatch, Unowned

__all__ = ["OptimSchedulerDict"]

_log = logging.getLogger("optimscheduler")


class OptimSchedulerDict(Mapping[str, OptimScheduler]):
    """A mapping of names to OptimSchedulers over one model, with one step for all of them.

        optims = OptimSchedulerDict({"generator": ..., "discriminator": ...})
        with optims.forward():
            losses = model(batch)          # {"generator_loss": ..., "discriminator_loss": ...}
        reports = optims.step(losses)

    Each member optimises its own loss with its own parameters, window, interval, clipping and schedule. All
    backwards of a batch come before any update; a loss that several members name is run backward once.

    Args:
        members: name -> OptimScheduler, all over the same model and in the same precision.
        unowned: what to do about trainable parameters that no member owns: `"warn"` or `"error"`.
        clip_together: members whose gradients are clipped as one: True for all, a list of names, or a list
            of such lists. Their norm is that of all their gradients, each as it will be applied; the factor,
            and the decision to refuse, are the same for all. They need the same `accum_grad`,
            `step_per_update`, `grad_clip`, `grad_norm_type` and `guard`.

    Raises:
        ConfigError: there is no member, they differ in model or precision, or those clipped together in what
            one norm needs.
        ParameterError: a trainable parameter has two owners, or none and `unowned="error"`.
    """

    def __init__(
        self,
        members: Mapping[str, OptimScheduler],
        *,
        unowned: Unowned = "warn",
        clip_together: ClipTogether = False,
    ) -> None:
        one_of("unowned", unowned, ["warn", "error"])
        if not members:
            raise ConfigError("an OptimSchedulerDict needs at least one OptimScheduler")
        self._members = dict(members)
        self._check_alike()
        self._check_owners(unowned)
        self._adopt(clip_together)

    def _check_alike(self) -> None:
        (first_name, first), *others = self._members.items()
        for name, optim in others:
            if optim.model is not first.model:
                raise ConfigError(
                    f"{name!r:.80} and {first_name!r} are of different models; a dict is over one"
                )
            if optim.use_amp != first.use_amp:
                raise ConfigError(
                    f"use_amp: {optim.use_amp!r} for {name!r:.80}, {first.use_amp!r} for {first_name!r}; the "
                    "members share one forward pass, so they must have the same"
                )
            if optim.distributed != first.distributed:
                raise ConfigError(
                    f"distributed: {optim.distributed} for {name!r}, {first.distributed} for {first_name!r}; "
                    "the members train one model, so they must have the same"
                )

    def _check_owners(self, unowned: Unowned) -> None:
        owners: dict[int, str] = {}
        for name, optim in self._members.items():
            for parameter_name, parameter in optim.owned.by_name.items():
                if parameter.requires_grad and owners.setdefault(id(parameter), name) != name:
                    raise ParameterError(
                        f"{parameter_name!r} is owned by both {owners[id(parameter)]!r} and {name!r}; "
                        "narrow their updated_modules, or exclude it from one"
                    )
        model = next(iter(self._members.values())).model
        left = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in owners]
        if not left:
            return
        told = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        message = f"no OptimScheduler owns {len(left)} trainable parameters: {told}"
        if unowned == "error":
            raise ParameterError(message)
        _log.warning("%s; they will not train", message)

    def _adopt(self, clip_together: object) -> None:
        """Make one line of the members."""
        members = {name: optim.member for name, optim in self._members.items()}
        self._together = sets_of(clip_together, members)
        first = next(iter(self._members.values()))
        set_of = {name: names for names in self._together for name in names}
        for name, optim in self._members.items():
            together = set_of.get(name, ())
            optim.adopt(first.precision, together)
            if together:
                optim.member.guard = members[together[0]].guard  # one norm, one memory of it
        owners = [member.gradients.parameters for member in members.values()]
        sync = (
            first.sync if len(owners) == 1 else sync_for(first.model, owners, distributed=first.distributed)
        )
        self._line = BatchStep(first.model, members, first.precision, sync, self._together)

    def __getitem__(self, name: str) -> OptimScheduler:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"OptimSchedulerDict({self._members})"

    def forward(self, step_num: int | None = None, last: bool = False) -> AbstractContextManager[None]:
        """The context of a training forward pass; see `OptimScheduler.forward`."""
        return self._line.forward(step_num, last)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass alone, for validation."""
        return self._line.precision.autocast()

    def step(
        self,
        losses: Mapping[str, Tensor] | Tensor,
        time_func: Timer | None = None,
        step_num: int | None = None,
        epoch_num: int | None = None,
        logger: logging.Logger | None = None,
        *,
        weight: Scalar | Mapping[str, Scalar] | None = None,
        only: Collection[str] | None = None,
        last: bool = False,
    ) -> dict[str, StepReport]:
        """Optimise with the losses of one batch; see `OptimScheduler.step`.

        Args:
            losses: name -> scalar tensor, or one tensor where all name the same loss; never modified.
            time_func: entered with `["loss_backward_time", name]` and `["optim_time", name]`.
            step_num: the batch number, from 1, if `forward` was not told; None lets every member count.
            epoch_num: the epoch, from 1.
            logger: for refused gradients.
            weight: items behind the mean losses, one number or one per loss name.
            only: names of the members that this batch is for, in alternating training; the clocks of the
                others stand still.
            last: this batch ends its windows, for loops without `forward`, which is told otherwise.

        Returns:
            Name -> report.

        Raises:
            LossNotFound: `losses` lacks a loss that an active member needs.
            ConfigError: see `OptimScheduler.step`; or `only` names no member.
            NonFiniteError: more than `max_skips` gradients of a member in a row were refused.
        """
        wanted = {name: member.loss for name, member in self._line.members.items() if _among(name, only)}
        return self._line.step(
            by_name(losses, wanted),
            weight=weight,
            step_num=step_num,
            epoch=epoch_num,
            timer=time_func or untimed,
            logger=logger or _log,
            only=only,
            last=last,
        )

    def flush(self) -> dict[str, StepReport]:
        """Close the open windows as they are; reports of the members that had something pending."""
        return self._line.flush()

    def train(self) -> None:
        """Put the optimizers that have modes into the one for training; see `OptimScheduler.train`."""
        for optim in self._members.values():
            optim.train()

    def eval(self) -> None:
        """Put the optimizers that have modes into the one for validation; see `OptimScheduler.eval`."""
        for optim in self._members.values():
            optim.eval()

    def observe(self, metric: float) -> None:
        """Tell the feedback schedules a validation metric."""
        for optim in self._members.values():
            optim.observe(metric)

    def get_lr(self) -> dict[str, float]:
        """Name -> learning rate."""
        return {name: optim.get_lr() for name, optim in self._members.items()}

    def state_dict(self) -> dict[str, Any]:
        """Name -> state; see `OptimScheduler.state_dict`."""
        return {name: optim.state_dict() for name, optim in self._members.items()}

    def load_state_dict(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Go on from a saved state; see `OptimScheduler.load_state_dict`.

        Nothing is changed unless everything fits, in every member. With `on_mismatch="config"` members that
        only one side has are passed over, and named.

        Raises:
            CheckpointError: the names differ, or a member's state does not fit.
        """
        shared = self._shared_with(state, in_part=on_mismatch == "config")
        for name, optim in shared.items():
            try:
                optim.check_state(state[name], on_mismatch)
            except CheckpointError as error:
                raise CheckpointError(f"{name}: {error}") from error
        self._check_in_step(state)
        for name in self._members.keys() - shared.keys():
            _log.warning("%s is not in the checkpoint; it stays as it is", name)
        for name in state.keys() - shared.keys():
            _log.warning("%s is in the checkpoint alone; its state is dropped", name)
        for name, optim in shared.items():
            optim.load_state_dict(state[name], on_mismatch)
        self._adopt((_sets_in(state) if on_mismatch == "checkpoint" else self._together) or None)
        if on_mismatch == "checkpoint":  # members that were built anew had loss scales of their own
            for name, optim in shared.items():
                optim.load_state_dict(state[name])

    def _shared_with(self, state: Mapping[str, Any], *, in_part: bool) -> dict[str, OptimScheduler]:
        """The members that a checkpoint has too: all of them, unless told to take what fits."""
        if not isinstance(state, Mapping):
            raise CheckpointError(f"a state is a mapping, from state_dict(), got {state!r:.80}")
        shared = {name: optim for name, optim in self._members.items() if name in state}
        if not shared or (not in_part and set(state) != set(self._members)):
            hint = "; on_mismatch='config' takes those that both have" if shared else ""
            raise CheckpointError(
                f"the checkpoint has the OptimSchedulers {sorted(map(str, state))}, "
                f"this dict has {sorted(self._members)}{hint}"
            )
        return shared

    def _check_in_step(self, state: Mapping[str, Any]) -> None:
        """Members that are clipped together close their windows together.

        Raises:
            CheckpointError: in the saved run they did not.
        """
        for names in self._together:
            clocks = [state[name].get("clock") for name in names if name in state]
            if clocks and clocks.count(clocks[0]) < len(clocks):
                raise CheckpointError(
                    f"clip_together: the windows of {', '.join(names)} do not end in the same batches in "
                    "this checkpoint, as after step(only=...); go on without clip_together"
                )


def _among(name: str, only: Collection[str] | None) -> bool:
    """Whether a batch is for the member of that name."""
    return only is None or name in ([only] if isinstance(only, str) else only)


def _sets_in(states: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The members that were clipped together in a saved run, set by set."""
    sets = dict.fromkeys(tuple(state.get("config", {}).get("clip_together", ())) for state in states.values())
    return [names for names in sets if names]
