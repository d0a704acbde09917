"""`OptimScheduler`: one optimizer, one learning-rate curve and one training step, in one object."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Self, final

from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler.api.build_member import build_member, chosen_by, precision_of
from optimscheduler.api.hooks import check_collisions, check_sche_conf
from optimscheduler.api.saved import Saved
from optimscheduler.api.settings import Settings
from optimscheduler.backward.losses import by_name
from optimscheduler.backward.precision import Precision
from optimscheduler.errors import ConfigError
from optimscheduler.line.lr_hook import LrHook
from optimscheduler.line.step import BatchStep, Timer, untimed
from optimscheduler.optimizer.modes import set_mode
from optimscheduler.reports.ledger import StepReport
from optimscheduler.scalars import Scalar
from optimscheduler.schedules import FeedbackSchedule, Run
from optimscheduler.schedules.grammar import AnySchedule
from optimscheduler.sync import GradientSync, sync_for
from optimscheduler.weakly import Weakly
from optimscheduler.written import (
    AccumGrad,
    GradNormType,
    Layout,
    LrClock,
    Names,
    OptimType,
    ParamGroups,
    UseAmp,
    WrittenClip,
    WrittenGuard,
    WrittenSchedule,
    WrittenSchedules,
)

__all__ = ["NAME", "OptimScheduler"]

_log = logging.getLogger("optimscheduler")

NAME: Final = "main"
"""The name of a member that has none."""


class OptimScheduler(Saved):
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
        told = {key: value for key, value in locals().items() if key not in ("self", "model", "__class__")}
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.model = model
        self._run: Run | None = None
        self._set_up(self._settings_of(told))

    @classmethod
    def _settings_of(cls, told: Mapping[str, Any]) -> Settings:
        """The arguments of the constructor, checked."""
        cls._check_sche_conf(told["sche_conf"])
        return Settings(**told, lr_hook=f"{cls.__name__}.update_lr" if cls._computes_lr() else None)

    def _set_up(self, settings: Settings) -> None:
        """Become what the settings say."""
        self._chosen = chosen_by(settings, self.model)
        self._settings = settings
        self.optimizer = self._chosen.optimizer
        self.layout, self.distributed = settings.layout, settings.distributed
        self.optim_loss, self.updated_modules = settings.optim_loss, settings.updated_modules
        self.schedule: AnySchedule | None = settings.schedule  # type: ignore[assignment]  # read by now
        self.precision = precision_of(settings, self._chosen)
        hook = LrHook(f"{type(self).__name__}.update_lr", Weakly(self.update_lr))  # weakly: a cycle otherwise
        self.member = build_member(settings, self._chosen, self.model, hook)
        self.sync: GradientSync = sync_for(
            self.model, [self.member.gradients.parameters], distributed=settings.distributed
        )
        self.sync.begin()
        self._line = BatchStep(self.model, {NAME: self.member}, self.precision, self.sync)
        self._together = ()  # names in a dict, where one norm is of several members
        self._config = settings.plain(self._chosen.config)
        self.member.config = {**self._config, "max_skips": settings.max_skips}
        self.sche_init(**settings.sche_conf)

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

    @final
    def __repr__(self) -> str:
        told = {
            "optimizer": type(self.optimizer).__name__,
            "optim_loss": self.optim_loss,
            "updated_modules": self.updated_modules,
        }
        parts = [f"{key}={value}" for key, value in told.items()]
        return f"{type(self).__name__}({', '.join([*parts, *filter(None, [self.extra_repr_fn()])])})"

    # ---- what a subclass may be ----

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A `sche_init` may not take a name that the constructor has already."""
        super().__init_subclass__(**kwargs)
        check_collisions(cls.__name__, cls.sche_init, _CONSTRUCTOR)

    @classmethod
    def _check_sche_conf(cls, sche_conf: Mapping[str, Any]) -> None:
        """Check the arguments of a subclass's hook; the base class's takes none."""
        hook = _no_arguments if cls.sche_init is OptimScheduler.sche_init else cls.sche_init
        check_sche_conf(cls.__name__, hook, sche_conf, _CONSTRUCTOR)

    @classmethod
    def _computes_lr(cls) -> bool:
        return cls.update_lr is not OptimScheduler.update_lr


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
