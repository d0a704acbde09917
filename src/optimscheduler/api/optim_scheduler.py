"""`OptimScheduler`: one optimizer, one learning-rate curve and one training step, in one object."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Self, final

from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler._torch_compat import has_step_hooks
from optimscheduler.api.hooks import check_collisions, check_sche_conf
from optimscheduler.backward.losses import by_name
from optimscheduler.backward.precision import LossScale, Precision, precision_for
from optimscheduler.checks import boolean, number, one_of
from optimscheduler.errors import CheckpointError, ConfigError, OptimSchedulerError
from optimscheduler.gradients import gradients_for
from optimscheduler.line.member import Member
from optimscheduler.line.step import BatchStep, Timer, untimed
from optimscheduler.optimizer.build import may_be_fused
from optimscheduler.optimizer.choose import choose
from optimscheduler.optimizer.hyperparameters import Hyperparameters
from optimscheduler.optimizer.modes import has_modes, set_mode
from optimscheduler.optimizer.scheduled_numbers import scheduled_numbers
from optimscheduler.parameters.owned import OwnedParameters
from optimscheduler.parameters.selection import read_selector
from optimscheduler.plain_config import config_differences, plain
from optimscheduler.reports.ledger import Ledger, StepReport
from optimscheduler.scalars import Scalar
from optimscheduler.schedules import Constant, FeedbackSchedule, Run, Schedule
from optimscheduler.schedules.base import checked_schedule
from optimscheduler.schedules.grammar import AnySchedule, read_schedule
from optimscheduler.settings import (
    AccumGrad,
    GradNormType,
    Layout,
    LrClock,
    Names,
    OnMismatch,
    OptimType,
    ParamGroups,
    UseAmp,
    WrittenClip,
    WrittenGuard,
    WrittenSchedule,
    WrittenSchedules,
)
from optimscheduler.state.feedback import check_feedback
from optimscheduler.state.member_state import (
    Fit,
    average_differences,
    check_fits,
    check_whole,
    load_averages,
    load_state,
    state_of,
)
from optimscheduler.state.other_formats import TorchState, check_torch_state, load_torch_state
from optimscheduler.sync import GradientSync, sync_for
from optimscheduler.update.clip import clip_for
from optimscheduler.update.guard import guard_for
from optimscheduler.weakly import Weakly
from optimscheduler.window.clock import Cadence, Clock

__all__ = ["NAME", "OptimScheduler"]

_log = logging.getLogger("optimscheduler")

_CHECK_EVERY: Final = 100  # updates

NAME: Final = "main"
"""The name of a member that has none."""


class OptimScheduler:
    """Combines an optimizer with a learning-rate schedule and takes the training step with them.

        for batch in loader:
            with optim.forward():
                losses = model(batch)           # {"loss": scalar tensor, ...}
            report = optim.step(losses)

    The learning rate is `schedule`'s, or that of a subclass, which overrides up to three hooks and
    nothing else: `sche_init`, `update_lr`, `extra_repr_fn`.

    Args:
        optim_type: a name in `torch.optim`, a dotted path to an `Optimizer` subclass, or such a class. Or an
            optimizer that is there already, see `from_optimizer`.
        optim_conf: its keyword arguments. `lr` is the base value: the peak of every schedule.
        model: the model, on its device already; its parameters are optimised.
        distributed: average the gradients over the ranks of torch.distributed. A model wrapped in
            DistributedDataParallel or by `fully_shard` says so itself; one that is not wrapped needs it.
        optim_loss: name of the loss to optimise; None is `"loss"`.
        updated_modules: names of the modules to update, dotted ones reach deeper; None is the model. Or
            mappings: `{"name": "blocks", "ndim": 2}` is the matrices in the blocks.
        step_per_update: every how many windows this object does something, >= 1.
        use_amp: False; True, which is float16 with a loss scale on CUDA and nothing elsewhere;
            `"fp16"` or `"bf16"`, which are honoured anywhere.
        accum_grad: batches per window, >= 1. `"host"`, for a loop that somebody else runs: a window ends
            where `forward` or `step` is told `last=True`, or with `flush()`.
        ft_factor: constant factor of the learning rate, > 0.
        grad_clip: largest gradient norm that is applied unchanged, > 0; None measures only. Or a mapping:
            `{"value": 0.5}` clips every element, `{"agc": 0.01, "eps": 1e-3}` every unit in proportion to
            its weights; a `"norm"` beside them limits the norm of what they leave.
        grad_norm_type: p of that norm, >= 1, or `"inf"`.
        schedule: factor of the base learning rate over real steps: an object, its repr, or
            `{"type": ..., "conf": ...}`. None is a constant.
        schedules: the same for other numbers of the optimizer's groups, by name: `{"weight_decay": ...,
            "betas[0]": ...}`; each is its value in `optim_conf` times its factor.
        param_groups: rules for parameters with settings, and schedules, of their own; see `GroupRule`.
        exclude: parameters to leave out, written in the same way.
        guard: None refuses non-finite gradients only; z, or `{"z", "window", "warm_up"}`, refuses
            spikes too; see `SpikeGuard`.
        lr_clock: `"window"` counts every window; `"applied"` counts updates that were not refused,
            which on an accelerator costs one synchronisation per update.
        max_skips: refusals in a row that are put up with, >= 0.
        forensics: on an accelerator, look at every outcome at once, so that a refusal can name parameters.
        check_ranks: compare configuration, batch number and weights of the ranks at the first update and
            every hundred from there, and name the rank that differs.
        layout: where small parameters lie. `"flat"` is side by side in one tensor per group, which makes the
            update of many small tensors several times faster; `"loose"` leaves every tensor alone, and equals
            a hand-written loop bit for bit; `"auto"` is flat where that is possible.
        **sche_conf: the arguments of the subclass's `sche_init`.

    Raises:
        ConfigError: a setting is unknown, missing or out of range.
        ParameterError: a selection of parameters matches nothing, or nothing is trainable.
    """

    def __init__(
        self,
        optim_type: OptimType,
        optim_conf: Mapping[str, Any] | None,
        model: nn.Module,
        distributed: bool = False,
        optim_loss: str | None = None,
        updated_modules: Names | None = None,
        step_per_update: int = 1,
        use_amp: UseAmp = True,
        accum_grad: AccumGrad = 1,
        ft_factor: float = 1.0,
        grad_clip: WrittenClip | None = 1.0,
        grad_norm_type: GradNormType = 2.0,
        *,
        schedule: WrittenSchedule | None = None,
        schedules: WrittenSchedules | None = None,
        param_groups: ParamGroups | None = None,
        exclude: Names = (),
        guard: WrittenGuard | None = None,
        lr_clock: LrClock = "window",
        max_skips: int = 25,
        forensics: bool = False,
        check_ranks: bool = False,
        layout: Layout = "auto",
        **sche_conf: Any,  # Any: the subclass's own
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        boolean("distributed", distributed)
        _check_names(optim_loss, updated_modules, exclude)
        hook = _no_arguments if type(self).sche_init is OptimScheduler.sche_init else type(self).sche_init
        check_sche_conf(type(self).__name__, hook, sche_conf, _CONSTRUCTOR)
        # parameters, optimizer
        self.layout = layout
        self.model = model
        self.distributed = distributed
        self.optim_loss = optim_loss
        self.updated_modules = None if updated_modules is None else _listed(updated_modules)
        excluded = _listed(exclude)
        self._chosen = choose(optim_type, optim_conf, model, self.updated_modules, excluded, param_groups)
        owned = self._chosen.owned
        self.optimizer = self._chosen.optimizer
        # base values, parts
        self.schedule = self._read_schedule(schedule)
        self._chosen.check_driven(self._driver(), ft_factor)
        of_all_groups = _read_all("schedules", schedules)
        self._run: Run | None = None
        self._lr_counts_applied = one_of("lr_clock", lr_clock, ["window", "applied"]) == "applied"
        self.precision: Precision = precision_for(use_amp, next(iter(owned.by_name.values())).device)
        loss = "loss" if optim_loss is None else optim_loss
        self.member = Member(
            loss=loss,
            owned=owned,
            layout=layout,
            optimizer=self.optimizer,
            clock=Clock(Cadence(accum_grad=accum_grad, step_per_update=step_per_update)),
            gradients=gradients_for(
                [g.parameters for g in owned.groups],
                self.optimizer,
                model,
                layout,
                fused=may_be_fused(self.optimizer),
            ),
            clip=clip_for(grad_clip, grad_norm_type),
            guard=guard_for(guard),
            write=Weakly(self._write),  # a cycle otherwise, and hooks would stay
            values=Hyperparameters(
                self.optimizer,
                self._chosen.base_lr,
                number("ft_factor", ft_factor, above=0),
                scheduled_numbers(
                    self.optimizer,
                    of_all_groups,
                    [_read_all(f"param_groups: '{g.label}'", g.schedules) for g in owned.groups],
                ),
                driver=self._driver(),
                before=self._chosen.lr_before(self._driver()),
            ),
            ledger=Ledger(loss, max_skips, boolean("forensics", forensics)),
            check_every=_CHECK_EVERY if boolean("check_ranks", check_ranks) else 0,
            feedback=self._listener.start() if self._listener else None,
            moded=has_modes(self.optimizer),
        )
        self.member.clip.limit.check(self.member.gradients.parameters)
        self.sync: GradientSync = sync_for(model, [self.member.gradients.parameters], distributed=distributed)
        self.sync.begin()
        self._line = BatchStep(model, {NAME: self.member}, self.precision, self.sync)
        self._together: tuple[str, ...] = ()  # names in a dict, where one norm is of several members
        self._config = plain(
            {
                **self._chosen.config,
                "optim_loss": optim_loss,
                "step_per_update": step_per_update,
                "use_amp": use_amp,
                "accum_grad": accum_grad,
                "ft_factor": ft_factor,
                "grad_clip": self.member.clip.written if isinstance(grad_clip, Mapping) else grad_clip,
                "grad_norm_type": grad_norm_type,
                "schedule": self.schedule,
                **({"schedules": of_all_groups} if of_all_groups else {}),
                "guard": guard,
                "lr_clock": lr_clock,
                **sche_conf,
            }
        )
        self.member.config = {**self._config, "max_skips": max_skips}
        self.sche_init(**sche_conf)

    @classmethod
    def from_optimizer(cls, optimizer: Optimizer, model: nn.Module, **keywords: Any) -> Self:
        """Take over an optimizer that is there already, with its groups and the state that it has.

            optim = OptimScheduler.from_optimizer(optimizer, model, schedule="Cosine(steps=900)")

        It becomes `optim.optimizer`, and what it holds is what is owned. The base learning rate is that of
        its `defaults`, or where they have none that of its first group.

        Args:
            optimizer: over parameters of the model, all or some of them.
            model: as for the constructor.
            **keywords: the constructor's other arguments. Any: theirs.

        Raises:
            ConfigError: no optimizer, or an argument that would change what it holds.
            ParameterError: it holds parameters that are not the model's.
        """
        if not isinstance(optimizer, Optimizer):
            given = (
                f"a {type(optimizer).__name__}" if isinstance(optimizer, nn.Module) else f"{optimizer!r:.80}"
            )
            raise ConfigError(
                f"from_optimizer takes a torch.optim.Optimizer first, then the model; the first is {given}. "
                f"A class or a name goes to {cls.__name__}(...) itself, with its optim_conf"
            )
        told = {key: value for key, value in keywords.items() if value is not None or key != "exclude"}
        return cls(optimizer, told.pop("optim_conf", None), model, **told)

    # ---- the three hooks ----

    def sche_init(self, *args: Any, **sche_conf: Any) -> None:
        """Hook: take the arguments of the curve, by name. `self.get_lr()` is the base learning rate here."""

    def update_lr(self, real_step: int, epoch_num: int) -> float:  # noqa: ARG002  # the hook's signature
        """Hook: the learning rate of a real step, called by keyword once per update, just before it.

        Args:
            real_step: number of the window, from 1, idle ones included.
            epoch_num: the epoch given last, from 1.

        Returns:
            The learning rate of a group with the base value, before `ft_factor`; finite, >= 0.
        """
        factor = 1.0 if self.schedule is None else self.schedule.value_at(real_step, self.member.feedback)
        return self.member.values.base_lr * factor

    def extra_repr_fn(self) -> str:
        """Hook: what a subclass adds to the repr, for example `"warmup_steps=4000"`."""
        return "" if self._computes_lr() else f"schedule={self.schedule!r}"

    # ---- the training step ----

    @final
    def forward(self, step_num: int | None = None, last: bool = False) -> AbstractContextManager[None]:
        """The context of a training forward pass: autocast.

        Args:
            step_num: the batch number, from 1; None counts.
            last: this batch ends its window, though that is not full.

        Raises:
            ConfigError: `step_num` is not beyond the last batch.
        """
        return self._line.forward(step_num, last)

    @final
    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass alone, for validation."""
        return self.precision.autocast()

    @final
    def step(
        self,
        losses: Mapping[str, Tensor] | Tensor,
        time_func: Timer | None = None,
        optim_name: str | None = None,
        step_num: int | None = None,
        epoch_num: int | None = None,
        logger: logging.Logger | None = None,
        *,
        weight: Scalar | Mapping[str, Scalar] | None = None,
        last: bool = False,
    ) -> StepReport:
        """Optimise with the losses of one batch: backward, and the update if it completes a window.

        Args:
            losses: name -> scalar tensor, or this object's loss alone; never modified.
            time_func: entered with `["loss_backward_time", optim_name]` and `["optim_time", optim_name]`.
            optim_name: the name of this object in those.
            step_num: the batch number, from 1, if `forward` was not told.
            epoch_num: the epoch, from 1; None is the last one given.
            logger: for refused gradients; None is the logger `optimscheduler`.
            weight: items (tokens, frames) behind the mean loss, >= 0, or one number per loss name. The
                gradient of the window is then sum(n_i grad_i) / sum(n_i), equal to one big batch's.
            last: this batch ends its window, for loops without `forward`, which is told otherwise.

        Returns:
            What happened; its tensors stay on the device until `.read()`.

        Raises:
            LossNotFound: `losses` lacks the loss.
            ConfigError: the loss is no scalar or needs no gradient, `step_num` does not go forward, or
                `last` is not what `forward` was told.
            NonFiniteError: more than `max_skips` gradients in a row were refused.
        """
        self._check_alone()
        reports = self._line.step(
            by_name(losses, {NAME: self.member.loss}),
            weight=weight,
            step_num=step_num,
            epoch=epoch_num,
            timer=_renamed(time_func, optim_name),
            logger=logger or _log,
            last=last,
        )
        return reports[NAME]

    @final
    def flush(self) -> StepReport | None:
        """Close the open window as it is, with the batches it has; the next batch opens a new one.

        Returns:
            The report of the update; None where nothing was pending.
        """
        self._check_alone()
        return self._line.flush().get(NAME)

    @final
    def train(self) -> None:
        """Put an optimizer that has modes, as schedule-free ones do, into the one for training.

        Call it before training and after each `eval()`. Other optimizers have no modes: nothing happens.
        """
        set_mode(self.optimizer, train=True)

    @final
    def eval(self) -> None:
        """Put an optimizer that has modes into the one for validation, sampling and saving weights.

        The weights are those to be used from here on, until `train()`. Other optimizers have no modes.
        """
        set_mode(self.optimizer, train=False)

    @final
    def observe(self, metric: float) -> None:
        """Tell a feedback schedule a validation metric; other schedules do not listen.

        Args:
            metric: with several ranks, which must all tell one, their mean is heard.
        """
        if self._listener:
            self.member.feedback = self._listener.observe(self.member.feedback, self.sync.mean(float(metric)))

    @final
    def resolve(self, run: Run) -> None:
        """Put real steps in the places of lengths that depend on the run, such as `"10%"`.

        Args:
            run: how long it is, in real steps of this object: windows, idle ones included.

        Raises:
            ConfigError: the run does not say what is needed, or is too short.
        """
        self._run = run
        if self.schedule is not None:
            self.schedule = self.schedule.resolved(run)
        self.member.values.resolve(run)

    @final
    def get_lr(self) -> float:
        """What the optimizer holds for its first group; before the first update that is the base."""
        return self.member.values.lr

    def _check_alone(self) -> None:
        if self._together:
            raise ConfigError(
                f"{', '.join(self._together)} are clipped together (clip_together), so they are stepped "
                "together: call step and flush of the OptimSchedulerDict"
            )

    @property
    def _listener(self) -> FeedbackSchedule[Any] | None:
        return None if self.schedule is None else self.schedule.listener

    def _write(self, real_step: int, epoch: int) -> None:
        """Write what an update at a real step, in an epoch, is made with."""
        step = self.member.ledger.applied + 1 if self._lr_counts_applied else real_step
        if self.member.values.sets_own:
            self.member.values.write(math.nan, step)
            return
        lr = self.update_lr(real_step=step, epoch_num=epoch)
        if isinstance(lr, Tensor):
            lr = lr.item()
        if isinstance(lr, bool) or not isinstance(lr, int | float) or not math.isfinite(lr) or lr < 0:
            raise ConfigError(
                f"{type(self).__name__}.update_lr(real_step={step}, epoch_num={epoch}) returned {lr!r}; "
                "a learning rate is a finite number >= 0"
            )
        self.member.values.write(lr, step)

    @final
    def adopt(self, precision: Precision, together: Sequence[str] = ()) -> None:
        """Share the loss scales of a dict that this object is a member of.

        Args:
            precision: the dict's.
            together: names of the members that this one is clipped together with, its own among them.
        """
        self.precision = precision
        self._together = tuple(together)
        self._config.pop("clip_together", None)
        if together:
            self._config["clip_together"] = list(together)
        self.member.config = {**self._config, "max_skips": self.member.ledger.max_skips}
        self._line = BatchStep(self.model, {NAME: self.member}, precision, self.sync)

    @property
    def together(self) -> tuple[str, ...]:
        """Names of the members of a dict that are clipped together with it, its own among them."""
        return self._together

    @property
    def owned(self) -> OwnedParameters:
        """The parameters that it optimises."""
        return self.member.owned

    @property
    def use_amp(self) -> UseAmp:
        """The precision asked for."""
        use_amp: UseAmp = self._config["use_amp"]
        return use_amp

    # ---- what the origin's subclasses may read ----

    @property
    def accum_grad(self) -> AccumGrad:
        """Batches per window, or `"host"`."""
        return self.member.clock.cadence.accum_grad

    @property
    def step_per_update(self) -> int:
        """Every how many windows this object does something."""
        return self.member.clock.cadence.step_per_update

    @property
    def grad_clip(self) -> WrittenClip | None:
        """Largest gradient norm that is applied unchanged; a mapping where it clips by value or by unit."""
        return self.member.clip.written

    @property
    def grad_norm_type(self) -> float:
        """P of that norm."""
        return self.member.clip.norm_type

    @property
    def ft_factor(self) -> float:
        """Constant factor of the learning rate."""
        return self.member.values.ft_factor

    @property
    def scaler(self) -> LossScale | None:
        """The loss scale, in float16; otherwise None."""
        return self.precision.scaler(self.member.loss)

    @final
    def __repr__(self) -> str:
        told = {
            "optimizer": type(self.optimizer).__name__,
            "optim_loss": self.optim_loss,
            "updated_modules": self.updated_modules,
        }
        parts = [f"{key}={value}" for key, value in told.items()]
        return f"{type(self).__name__}({', '.join([*parts, *filter(None, [self.extra_repr_fn()])])})"

    # ---- state ----

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
        changed, fit = self._looked_at(state, on_mismatch)
        if isinstance(fit, TorchState):
            load_torch_state(self.member, self.scaler, state, fit)
            for line in fit.changed:
                _log.warning("%s", line)
            load_averages(self.member, {}, settings=False)
            _log.info("this state has no clock: give step_num, or the schedule begins at real step 1")
            return
        settings = not changed or on_mismatch == "checkpoint"
        average_lines = average_differences(self.member, state)
        if changed and on_mismatch == "checkpoint":
            self._build_anew(state)
            fit = check_fits(self.member, self._config, state)
        load_state(self.member, self._config, self.precision, state, fit, settings=settings)
        load_averages(self.member, state, settings=on_mismatch == "checkpoint")
        for line in changed:
            _log.warning("%s; taken from the %s", line, on_mismatch.replace("config", "configuration"))
        for line in average_lines:
            _log.warning("%s; an average that the checkpoint lacks begins with the next update", line)
        for line in fit.changed:
            _log.warning("%s", line)

    def _build_anew(self, state: Mapping[str, Any]) -> None:
        """Become what the checkpoint's configuration describes."""
        if "step" in vars(self.optimizer) or has_step_hooks(self.optimizer):
            _log.warning(
                "optim.optimizer is built anew from the checkpoint: attach its hooks and schedulers again"
            )
        self.member.gradients.loosen()
        run, averages = self._run, self.member.averages
        OptimScheduler.__init__(self, model=self.model, **self._arguments(state))
        self.member.averages = averages
        if run is not None:
            self.resolve(run)

    @final
    def check_state(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> list[str]:
        """Whether `load_state_dict` would take a state; nothing is changed.

        Returns:
            A line for every setting that differs.

        Raises:
            CheckpointError: see `load_state_dict`.
        """
        return self._looked_at(state, on_mismatch)[0]

    def _looked_at(
        self, state: Mapping[str, Any], on_mismatch: OnMismatch
    ) -> tuple[list[str], Fit | TorchState]:
        """A line for every setting that differs, and what of the state may be loaded."""
        one_of("on_mismatch", on_mismatch, ["error", "config", "checkpoint"])
        in_part = on_mismatch == "config"
        self.member.check_own_weights("load_state_dict")
        if self.member.window and not self.sync.flushable:
            raise CheckpointError(
                "under fully_shard a state cannot be loaded in the middle of a window, whose gradients torch "
                "keeps out of reach; load it after a window's end, or build model and OptimScheduler anew"
            )
        if not isinstance(state, Mapping):
            raise CheckpointError(f"a state is a mapping, from state_dict(), got {state!r:.80}")
        if "version" not in state:
            return [], check_torch_state(self.member, state, self._config["optim_conf"], in_part=in_part)
        check_whole(state)
        changed = config_differences(state["config"], self._config)
        told = [*changed, *average_differences(self.member, state)]
        if told and on_mismatch == "error":
            raise CheckpointError(
                "the checkpoint was made with another configuration; on_mismatch='config' or 'checkpoint' "
                "says which side wins:\n  " + "\n  ".join(told)
            )
        described = self._described_by(state, changed) if changed and not in_part else self
        if state["config"]["schedule"] == described._config["schedule"]:
            check_feedback(described.schedule, state["feedback"])
        settings = not (changed and in_part)
        member, config = described.member, described._config
        return changed, check_fits(member, config, state, settings=settings, in_part=in_part)

    def _described_by(self, state: Mapping[str, Any], changed: Sequence[str]) -> Self:
        """Another object, as the checkpoint's configuration describes it."""
        self._chosen.check_buildable(changed)
        try:
            return type(self)(model=self.model, **{**self._arguments(state), "layout": "loose"})
        except (OptimSchedulerError, TypeError) as error:
            raise CheckpointError(f"the checkpoint's configuration cannot be built here: {error}") from error

    def _arguments(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the constructor that build what the checkpoint's configuration describes."""
        conf: dict[str, Any] = dict(state["config"])
        conf.pop("clip_together", None)  # the dict's
        conf |= {"max_skips": self.member.ledger.max_skips, "forensics": self.member.ledger.forensics}
        conf |= {"distributed": self.distributed, "check_ranks": bool(self.member.check_every)}
        conf |= {"layout": self.layout}
        if self._computes_lr():
            del conf["schedule"]
        return conf

    # ---- what a subclass may be ----

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A `sche_init` may not take a name that the constructor has already."""
        super().__init_subclass__(**kwargs)
        check_collisions(cls.__name__, cls.sche_init, _CONSTRUCTOR)

    @classmethod
    def _computes_lr(cls) -> bool:
        return cls.update_lr is not OptimScheduler.update_lr

    def _driver(self) -> str | None:
        """What drives the learning rate of all groups, for people; None where it stays."""
        if self._computes_lr():
            return f"{type(self).__name__}.update_lr"
        return None if type(self.schedule) is Constant else repr(self.schedule)

    def _read_schedule(self, schedule: object) -> AnySchedule | None:
        if schedule is None:
            return None if self._computes_lr() else Constant()
        if self._computes_lr():
            raise ConfigError(
                f"schedule: {type(self).__name__} computes its own learning rate in update_lr; "
                "leave schedule out, or use OptimScheduler"
            )
        return read_schedule(schedule, "schedule")


def _read_all(where: str, schedules: Mapping[str, object] | None) -> dict[str, Schedule]:
    """The schedules of numbers of the optimizer's groups, none of which may listen to a metric."""
    if schedules is not None and not isinstance(schedules, Mapping):
        raise ConfigError(
            f"{where} must be a mapping like {{'weight_decay': 'Linear(steps=100)'}}, got {schedules!r:.80}"
        )
    read = {place: read_schedule(text, f"{where}: {place}") for place, text in (schedules or {}).items()}
    return {place: checked_schedule(f"{where}: {place}", found) for place, found in read.items()}


_CONSTRUCTOR: Final = tuple(
    name
    for name in inspect.signature(OptimScheduler.__init__).parameters
    if name not in ("self", "sche_conf")
)


def _no_arguments() -> None:
    """What the base class's `sche_init` takes: it ignores its arguments, so none may be given."""


def _renamed(time_func: Timer | None, optim_name: str | None) -> Timer:
    if time_func is None:
        return untimed
    return lambda names: time_func([names[0], optim_name or names[1]])


def _check_names(optim_loss: object, updated_modules: Names | None, exclude: Names) -> None:
    if not (optim_loss is None or (isinstance(optim_loss, str) and optim_loss)):
        raise ConfigError(f"optim_loss must be the name of one loss, got {optim_loss!r:.80}")
    for key, names in {"updated_modules": updated_modules, "exclude": exclude}.items():
        if names is None and key == "updated_modules":
            continue
        for each in _listed(names) if isinstance(names, str | Mapping | Sequence) else [names]:
            read_selector(key, each)


def _listed(names: Names) -> list[object]:
    """One selector is a list of one."""
    return [names] if isinstance(names, str | Mapping) else list(names)
