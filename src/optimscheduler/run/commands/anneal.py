"""`optimscheduler anneal`: branch a cool-down off a checkpoint into a run of its own."""

from __future__ import annotations

import inspect
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.build import TYPES
from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.lookup import class_at
from optimscheduler.run.checkpoint.reader import content_of, damage_of
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.commands.run_folder import CONFIG, keep_source, source_of
from optimscheduler.run.config.schema import RunConfig, read_config
from optimscheduler.run.config.strict_yaml import write_text
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.monitor.jsonl import METRICS, VALIDATION
from optimscheduler.run.plan.member_plan import MemberPlan
from optimscheduler.run.plan.plan import Plan, plan_of
from optimscheduler.schedules import Constant, CoolDown, Product, Run, Schedule, Sequence
from optimscheduler.schedules.grammar import read_schedule

__all__ = ["branch_off"]

_log = logging.getLogger("optimscheduler")

State = Mapping[str, Any]  # Any: a tree of plain values


def branch_off(run: Path, at: str, steps: int, fall: CoolDown, out: Path | None) -> tuple[RunConfig, Path]:
    """Make a run folder that goes on from a checkpoint of another run and cools down.

    Args:
        run: folder of the other run; it is left as it is.
        at: the real step of the checkpoint, or `last`.
        steps: windows of the cool-down, >= 1.
        fall: its floor and shape; its length is that of `steps`.
        out: the new folder; None is beside the other, `RUN-anneal-STEP`.

    Returns:
        The configuration of the new run, which is to be resumed with it, and its folder.

    Raises:
        OptimSchedulerError: there is no such checkpoint, or it cannot be done; then nothing was written.
    """
    checkpoints = Checkpoints(run / "checkpoints")
    if not checkpoints.all():
        raise ConfigError(f"{run} holds no checkpoint of a run; RUN is a folder that `train` has written")
    path, state = _chosen(checkpoints, at)
    beside = run if run.name else run.resolve()
    out = out or beside.with_name(f"{beside.name}-anneal-{state['progress']['windows']}")
    out = out.resolve() if out.name in ("", "..") else out
    config = read_config(state["config"], str(path))
    data = open_data(config)
    if state["ranks"] > 1 and not config.counts_items:
        raise ConfigError(
            f"{run} was trained by {state['ranks']} ranks, and anneal runs in one process: for updates of "
            "the same size its configuration must say samples_per_update in place of accum_grad"
        )
    plan = plan_of(config, data.items, state["ranks"], data.tokens_per_item)
    cooled = read_config(_cooled(config, plan, state, steps, fall), str(path))
    with _written_whole(out) as folder:
        (folder / "checkpoints").mkdir()
        copied = shutil.copytree if path.is_dir() else shutil.copy2  # of an old format it is a file
        copied(path, folder / "checkpoints" / path.name)
        for name in (METRICS, VALIDATION):  # so that the curves join
            if (run / name).is_file():
                lines = (run / name).read_bytes()[: state["lengths"].get(name, 0)]
                (folder / name).write_bytes(lines)
        keep_source(folder, source_of(run))
        (folder / CONFIG).write_text(write_text(cooled.plain()), encoding="utf-8")
    return cooled, out


def _chosen(checkpoints: Checkpoints, at: str) -> tuple[Path, State]:
    """The newest whole checkpoint, of a real step or at all, and what is in it; nothing is renamed."""
    steps: list[str] = []
    for path in reversed(checkpoints.all()):
        try:
            state = content_of(path)
            step = str(state["progress"]["windows"])
            if at not in (step, "last"):
                steps.append(step)
                continue
            damage = damage_of(path)
        except CheckpointError as error:
            damage = damage_of(path) or str(error)
        if damage is None:
            return path, state
        _log.warning("%s cannot be used: %s. It is passed over, and left as it is", path, damage)
    if not steps:
        raise CheckpointError(f"--from: there is no whole checkpoint in {checkpoints.folder}")
    known = ", ".join(dict.fromkeys(reversed(steps)))
    raise CheckpointError(
        f"--from: there is no checkpoint of real step {at} in {checkpoints.folder}. There are: {known}, last "
        f"(how many a run keeps is said by its setting keep)"
    )


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it in the end; after an error nothing of it is left.

    Raises:
        ConfigError: it cannot be written, or `out` is taken.
    """
    aside = out.with_name(f"{out.name}.tmp")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{out} holds files already; choose another folder with --out")
        if aside.exists():
            raise ConfigError(f"{aside} is in the way, maybe of an anneal that was killed; remove it")
        missing = [folder for folder in aside.parents if not folder.exists()]
        try:
            aside.mkdir(parents=True)
            yield aside
            aside.replace(out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            with suppress(OSError):
                for folder in missing:
                    folder.rmdir()
            raise
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {_why(error)}. Choose another folder with --out"
        ) from None


def _why(error: OSError) -> str:
    """What went wrong, and with which file."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][2])  # (from, to, why) of each file that could not be copied
    return str(error)


def _cooled(config: RunConfig, plan: Plan, state: State, steps: int, fall: CoolDown) -> dict[str, Any]:
    """The configuration as plain values, with a cool-down in every OptimScheduler."""
    values = config.plain()
    sches = values["train_cfg"]["optim_sches"]
    single = bool(set(sches) & {"type", "conf"})
    for name, member in plan.members.items():
        described = sches if single else sches[name]
        _cool(described, name, config, member, state["optim_sches"][name], plan, steps, fall)
    done = state["progress"]["windows"]
    values["num_steps"] = done + steps
    values["num_epochs"] = max(
        values["num_epochs"], math.ceil((done + steps) / plan.horizon.windows_per_epoch)
    )
    return values


def _cool(
    described: dict[str, Any],
    name: str,
    config: RunConfig,
    member: MemberPlan,
    state: State,
    plan: Plan,
    steps: int,
    fall: CoolDown,
) -> None:
    """Write a cool-down into the description of one OptimScheduler."""
    conf: dict[str, Any] = dict(described.get("conf") or {})
    applied = conf.get("lr_clock") == "applied"
    step = state["ledger"]["applied"] if applied else state["clock"]["closed_windows"]
    length = math.ceil(steps * plan.horizon.accum_grad / member.accum_grad)
    fall = CoolDown(steps=length, floor=fall.floor, shape=fall.shape)
    cls: type[OptimScheduler] = class_at(
        described.get("type") or "OptimScheduler", OptimScheduler, f"{name}.type", TYPES
    )
    if cls.update_lr is OptimScheduler.update_lr:
        old = read_schedule(conf.get("schedule") or Constant(), "schedule").resolved(member.run)
        reached = old.value_at(step, state["feedback"])
        before = old if isinstance(old, Schedule) and old.listener is None else Constant(reached)
    else:  # a subclass computes its own: what it has reached is held, then cooled down
        ft_factor = conf.get("ft_factor", config.ft_factor)
        reached = member.rate(step) / ft_factor / conf["optim_conf"]["lr"]
        before = Constant(reached)
        known = inspect.signature(OptimScheduler.__init__).parameters
        conf = {key: value for key, value in conf.items() if key in known}
        described["type"] = "optimscheduler.OptimScheduler"
    conf["schedule"] = repr(_joined(name, before, step, reached, fall))
    conf["schedules"] = _resolved(conf.get("schedules"), member.run)
    if conf.get("param_groups"):
        conf["param_groups"] = [
            _cooled_rule(name, rule, member.run, step, fall) for rule in conf["param_groups"]
        ]
    described["conf"] = {key: value for key, value in conf.items() if value is not None}


def _cooled_rule(name: str, rule: State, run: Run, step: int, fall: CoolDown) -> dict[str, Any]:
    """A rule of `param_groups` whose own learning rate, if it has one, cools down with the others."""
    rule = dict(rule)
    if rule.get("schedules"):
        rule["schedules"] = _resolved(rule["schedules"], run)
    if rule.get("schedule"):
        old = read_schedule(rule["schedule"], "schedule").resolved(run)
        assert isinstance(old, Schedule)  # one that listens has been refused when the run was built
        rule["schedule"] = repr(_joined(name, old, step, old(step), fall))
    return rule


def _joined(name: str, before: Schedule, step: int, reached: float, fall: CoolDown) -> Schedule:
    if not reached:
        raise ConfigError(
            f"{name}: the learning rate is 0 at real step {step}; there is nothing to cool down"
        )
    return Sequence([(before, step)], Product(Constant(reached), fall))


def _resolved(schedules: State | None, run: Run) -> dict[str, str] | None:
    """In real steps of the old run, so that a longer one changes nothing."""
    if not schedules:
        return None
    return {place: repr(read_schedule(text, place).resolved(run)) for place, text in schedules.items()}
