"""From settings to the parts of one OptimScheduler."""

from __future__ import annotations

from typing import Final

from torch import nn

from optimscheduler.api.settings import Settings, read_all
from optimscheduler.backward.precision import Precision, precision_for
from optimscheduler.gradients import gradients_for
from optimscheduler.line.lr_hook import LrHook
from optimscheduler.line.member import Member
from optimscheduler.optimizer.build import may_be_fused
from optimscheduler.optimizer.choose import Chosen, choose
from optimscheduler.optimizer.hyperparameters import Hyperparameters
from optimscheduler.optimizer.modes import has_modes
from optimscheduler.optimizer.scheduled_numbers import scheduled_numbers
from optimscheduler.reports.ledger import Ledger
from optimscheduler.update.clip import clip_for
from optimscheduler.update.guard import guard_for
from optimscheduler.window.clock import Cadence, Clock

__all__ = ["build_member", "chosen_by", "precision_of"]

_CHECK_EVERY: Final = 100  # updates


def chosen_by(settings: Settings, model: nn.Module) -> Chosen:
    """The optimizer that the settings ask for, over parameters of a model.

    Raises:
        ConfigError: a setting of the optimizer is wrong.
        ParameterError: a selection of parameters matches nothing.
    """
    s = settings
    return choose(s.optim_type, s.optim_conf, model, s.updated_modules, s.exclude, s.param_groups)  # type: ignore[arg-type]  # lists by now


def precision_of(settings: Settings, chosen: Chosen) -> Precision:
    """The precision that the settings ask for, on the device of the parameters.

    Raises:
        ConfigError: it is none that there is.
    """
    return precision_for(settings.use_amp, next(iter(chosen.owned.by_name.values())).device)


def build_member(settings: Settings, chosen: Chosen, model: nn.Module, lr_hook: LrHook) -> Member:
    """One of each part that an OptimScheduler has.

    Args:
        settings: what was asked for.
        chosen: the optimizer and its parameters.
        model: on its device already.
        lr_hook: says the learning rate.

    Raises:
        ConfigError: a setting is wrong.
    """
    s, owned, listener = settings, chosen.owned, settings.listener
    chosen.check_driven(s.driver, s.ft_factor)
    member = Member(
        loss=s.loss,
        owned=owned,
        layout=s.layout,
        optimizer=chosen.optimizer,
        clock=Clock(Cadence(accum_grad=s.accum_grad, step_per_update=s.step_per_update)),
        gradients=gradients_for(
            [group.parameters for group in owned.groups],
            chosen.optimizer,
            model,
            s.layout,
            fused=may_be_fused(chosen.optimizer),
        ),
        clip=clip_for(s.grad_clip, s.grad_norm_type),
        guard=guard_for(s.guard),
        lr_hook=lr_hook,
        lr_counts_applied=s.lr_clock == "applied",
        values=_hyperparameters(s, chosen),
        ledger=Ledger(s.loss, s.max_skips, s.forensics),
        check_every=_CHECK_EVERY if s.check_ranks else 0,
        feedback=listener.start() if listener else None,
        moded=has_modes(chosen.optimizer),
    )
    member.clip.limit.check(member.gradients.parameters)
    return member


def _hyperparameters(settings: Settings, chosen: Chosen) -> Hyperparameters:
    """The numbers in the groups of the optimizer, and what moves them."""
    of_groups = [read_all(f"param_groups: '{g.label}'", g.schedules) for g in chosen.owned.groups]
    return Hyperparameters(
        chosen.optimizer,
        chosen.base_lr,
        float(settings.ft_factor),
        scheduled_numbers(chosen.optimizer, settings.schedules, of_groups),  # type: ignore[arg-type]  # read by now
        driver=settings.driver,
        before=chosen.lr_before(settings.driver),
    )
