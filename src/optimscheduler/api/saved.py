"""The state of an OptimScheduler: saved, looked at, loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

from torch import nn
from torch.optim import Optimizer

from optimscheduler._torch_compat import has_step_hooks
from optimscheduler.api.build_member import build_member, chosen_by, precision_of
from optimscheduler.api.facts import Facts
from optimscheduler.api.loading import Described, load_looked_at, load_other_format, look_at
from optimscheduler.api.settings import Settings
from optimscheduler.errors import CheckpointError, OptimSchedulerError
from optimscheduler.optimizer.choose import Chosen
from optimscheduler.schedules import Run
from optimscheduler.state.member_state import Fit, check_fits, state_of
from optimscheduler.state.other_formats import TorchState
from optimscheduler.sync import GradientSync
from optimscheduler.written import OnMismatch

__all__ = ["Saved"]

_log = logging.getLogger("optimscheduler")


class Saved(Facts):
    """What of an OptimScheduler saves and loads it."""

    model: nn.Module
    optimizer: Optimizer
    sync: GradientSync
    _settings: Settings
    _chosen: Chosen
    _run: Run | None

    def _set_up(self, settings: Settings) -> None:
        """Become what the settings say."""
        raise NotImplementedError

    @classmethod
    def _check_sche_conf(cls, sche_conf: Mapping[str, Any]) -> None:
        """Check the arguments of the hook `sche_init`."""
        raise NotImplementedError

    def resolve(self, run: Run) -> None:
        """Put real steps in the places of lengths that depend on the run."""
        raise NotImplementedError

    @final
    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as a plain nested dict that `weights_only=True` loads.

        The model's weights are not in it. Tensors are references, as in torch: save or copy the dict
        before training on.

        Raises:
            CheckpointError: a window is open, and each of several ranks holds a part of it.
        """
        self.member.check_own_weights("state_dict")
        if self.member.window and self.sync.apart:
            raise CheckpointError(
                "with several ranks the state can be saved where no window is open: after a step whose "
                "report says completes=True, or after flush()"
            )
        return state_of(self.member, self._config, self.precision)

    @final
    def load_state_dict(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Go on from a saved state: this class's, the origin's, or a plain torch optimizer's.

        Nothing is changed unless everything fits. The last two have no clock: give `step_num`, or the
        schedule begins anew.

        Args:
            state: from `state_dict`, or `{"optimizer", "scaler"}`, or `torch.optim.Optimizer.state_dict()`.
            on_mismatch: which configuration wins where they differ: neither (`"error"`), this object's
                (`"config"`; of another model's state it takes what fits), or the checkpoint's
                (`"checkpoint"`; the object is built anew from it).

        Raises:
            CheckpointError: parameters, optimizer or configuration differ; the differences are listed.
        """
        changed, fit = self._look_at(state, on_mismatch)
        if isinstance(fit, TorchState):
            load_other_format(self.member, self.precision, state, fit)
            return
        if changed and on_mismatch == "checkpoint":
            self._build_anew(state["config"])
            fit = check_fits(self.member, self._config, state)
        load_looked_at(self._described, self.precision, state, fit, changed, on_mismatch)

    def _build_anew(self, config: Mapping[str, Any]) -> None:
        """Become what a checkpoint's configuration describes; where that cannot be, stay as it was."""
        if "step" in vars(self.optimizer) or has_step_hooks(self.optimizer):
            _log.warning(
                "optim.optimizer is built anew from the checkpoint: attach its hooks and schedulers again"
            )
        self.member.gradients.loosen()
        before = dict(vars(self))
        try:
            self._set_up(self._settings.described_by(config))
        except Exception as error:
            vars(self).clear()
            vars(self).update(before)
            raise _unbuildable(error) from error
        self.member.averages = before["member"].averages
        if self._run is not None:
            self.resolve(self._run)

    @final
    def check_state(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> list[str]:
        """Whether `load_state_dict` would take a state; nothing is changed.

        Returns:
            A line for every setting that differs.

        Raises:
            CheckpointError: see `load_state_dict`.
        """
        return self._look_at(state, on_mismatch)[0]

    def _look_at(
        self, state: Mapping[str, Any], on_mismatch: OnMismatch
    ) -> tuple[list[str], Fit | TorchState]:
        return look_at(self._described, self.sync, state, on_mismatch, self._on_trial)

    @property
    def _described(self) -> Described:
        return Described(self.member, self._settings, self._config)

    def _on_trial(self, config: Mapping[str, Any], changed: Sequence[str]) -> Described:
        """What a checkpoint's configuration describes, built beside this object, without packing anything."""
        self._chosen.check_buildable(changed)
        try:
            settings = replace(self._settings.described_by(config), layout="loose")
            self._check_sche_conf(settings.sche_conf)
            chosen = chosen_by(settings, self.model)
            precision_of(settings, chosen)
            member = build_member(settings, chosen, self.model, self.member.lr_hook)
        except (OptimSchedulerError, TypeError) as error:
            raise _unbuildable(error) from error
        return Described(member, settings, settings.plain(chosen.config))


def _unbuildable(error: Exception) -> CheckpointError:
    return CheckpointError(f"the checkpoint's configuration cannot be built here: {error}")
