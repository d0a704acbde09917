"""OptimSchedulers out of plain dicts, and what is said about dicts that describe none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler import (
    ConfigError,
    ExponentDecayLr,
    Noamlr,
    OptimScheduler,
    OptimSchedulerDict,
    ParameterError,
    build_optim_sches,
)
from optimscheduler.build import TYPES
from tests.cases_models import a_model

CONF: dict[str, Any] = {"optim_type": "Adam", "optim_conf": {"lr": 2e-3}}

BOTH = (
    "'optim_type' and 'optim_conf', which are missing; write for example "
    "{optim_type: Adam, optim_conf: {lr: 1e-3}}"
)


class Mine(OptimScheduler):
    """A user's own."""

    def sche_init(self, total: int = 7) -> None:
        self.total = total


def build(described: Any = None, *, exp: dict[str, Any] | None = None, **conf: Any) -> OptimScheduler:
    described = {"conf": {**CONF, **conf}} if described is None else described
    return build_optim_sches(a_model(), described, **{"use_amp": False, **(exp or {})})["main"]


def test_the_one_member_is_called_main() -> None:
    optims = build_optim_sches(a_model(), {"conf": CONF}, use_amp=False)
    assert isinstance(optims, OptimSchedulerDict)
    assert list(optims) == ["main"]
    assert type(optims["main"]) is OptimScheduler


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("noam.Noamlr", Noamlr),
        ("noam.NoamLr", Noamlr),
        ("exp.ExponentDecayLr", ExponentDecayLr),
        ("OptimScheduler", OptimScheduler),
        ("optimscheduler.Noamlr", Noamlr),
        ("optimscheduler.origin.exp.ExponentDecayLr", ExponentDecayLr),
        ("tests.test_build.Mine", "Mine"),
    ],
)
def test_a_type_is_a_short_name_or_a_dotted_path(name: str, kind: Any) -> None:
    optim = build({"type": name, "conf": CONF})
    assert type(optim) is kind or type(optim).__name__ == kind


def test_the_arguments_of_the_hook_stand_in_conf() -> None:
    optim = build({"type": "noam.Noamlr", "conf": {**CONF, "warmup_steps": 50}})
    assert isinstance(optim, Noamlr)
    assert optim.warmup_steps == 50


@pytest.mark.parametrize(
    "schedule",
    [
        "Warmup(steps=10, then=Cosine(steps=90))",
        {"type": "Warmup", "conf": {"steps": 10, "then": "Cosine(steps=90)"}},
    ],
)
def test_a_schedule_stands_in_conf_as_repr_or_as_type_and_conf(schedule: Any) -> None:
    assert repr(build(schedule=schedule).schedule) == "Warmup(steps=10, then=Cosine(steps=90))"


def test_what_the_experiment_says_holds_unless_the_conf_says_otherwise() -> None:
    exp = {
        "use_amp": "bf16",
        "accum_grad": 4,
        "ft_factor": 0.5,
        "grad_clip": 3.0,
        "grad_norm_type": 1.0,
        "distributed": False,
    }
    optim = build(exp=exp)
    assert str(optim.precision) == "bfloat16 autocast"
    assert (optim.accum_grad, optim.ft_factor, optim.grad_clip, optim.grad_norm_type) == (4, 0.5, 3.0, 1.0)
    assert build(exp=exp, accum_grad=2).accum_grad == 2


def test_the_description_is_left_alone() -> None:
    described = {"type": "noam.Noamlr", "conf": {**CONF, "updated_modules": ["0"]}}
    kept = copy.deepcopy(described)
    build(described)
    assert described == kept


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "optim_sches must be a mapping with 'type' and 'conf', or of names to such, got None"),
        ([CONF], f"optim_sches must be a mapping with 'type' and 'conf', or of names to such, got {[CONF]}"),
        ({"asr": {}}, f"optim_sches.asr.conf: OptimScheduler needs {BOTH}"),
        ({"asr": 3}, "optim_sches.asr must be a mapping with 'type' and 'conf', got 3"),
        (
            {"conf": CONF, "tpe": "noam.Noamlr"},
            "optim_sches: unknown key 'tpe'. Did you mean 'type'? Known: conf, type.",
        ),
        ({"type": "noam.Noamlr", "conf": None}, f"optim_sches.conf: Noamlr needs {BOTH}"),
        ({"type": "noam.Noamlr", "conf": 3}, "optim_sches.conf must be a mapping, got 3"),
        ({"type": "noam.Noamlr"}, f"optim_sches.conf: Noamlr needs {BOTH}"),
        (
            {"conf": {"optim_type": "Adam"}},
            "optim_sches.conf: OptimScheduler needs 'optim_conf', which is missing; write for example "
            "{optim_conf: {lr: 1e-3}}",
        ),
        (
            {"type": "noam.Noam", "conf": CONF},
            "optim_sches.type: there is no 'noam.Noam'. Did you mean 'noam.Noamlr'?",
        ),
        (
            {"type": "Noamlr", "conf": CONF},
            "optim_sches.type: there is no OptimScheduler 'Noamlr'. Did you mean 'noam.Noamlr'? "
            "Known: OptimScheduler, exp.ExponentDecayLr, noam.NoamLr, noam.Noamlr.",
        ),
        (
            {"type": "torch.nn.Linear", "conf": CONF},
            "optim_sches.type: 'torch.nn.Linear' is of type Linear, but needed here: OptimScheduler",
        ),
        (
            {"type": None, "conf": CONF},
            "optim_sches.type must be the name of an OptimScheduler, got None",
        ),
        (
            {"conf": {**CONF, "model": 3}},
            "optim_sches.conf: 'model' is given by the program, not by the configuration",
        ),
        (
            {"conf": {**CONF, "self": 3}},
            "optim_sches.conf: 'self' is given by the program, not by the configuration",
        ),
        (
            {"conf": {**CONF, "forensics": "1"}},
            "optim_sches.conf: forensics must be True or False, got '1'",
        ),
        (
            {"conf": {**CONF, "optim_loss": ""}},
            "optim_sches.conf: optim_loss must be the name of one loss, got ''",
        ),
        (
            {"conf": {**CONF, "layout": "x" * 1000}},  # a message stays one that can be read
            f"optim_sches.conf: layout: '{'x' * 79} is not known. Known: auto, flat, loose.",
        ),
        (
            {"type": "noam.Noamlr", "conf": {**CONF, "warmup_steps": 0}},
            "optim_sches.conf: Noamlr: warmup_steps must be a whole number of real steps >= 1, got 0",
        ),
        (
            {"conf": {**CONF, "schedule": "Cosine(steps=0)"}},
            "optim_sches.conf: schedule: Cosine: steps must be a whole number of real steps >= 1, got 0",
        ),
        (
            {"conf": {**CONF, "optim_conf": {"lr": 0}}},
            "optim_sches.conf: optim_conf: lr must be a finite number > 0, got 0",
        ),
    ],
)
def test_a_description_that_describes_none_says_where(described: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_optim_sches(a_model(), described, use_amp=False)
    assert str(caught.value) == message


@pytest.mark.parametrize("warmup_steps", [0, -5, "many", float("nan"), 2.5])
def test_warmup_steps_that_are_none_are_refused(warmup_steps: Any) -> None:
    with pytest.raises(ConfigError, match=r"^optim_sches\.conf: Noamlr: warmup_steps must be a whole number"):
        build({"type": "noam.Noamlr", "conf": {**CONF, "warmup_steps": warmup_steps}})


def test_R14_a_selection_without_a_match_keeps_its_kind_and_gets_its_place() -> None:
    with pytest.raises(ParameterError, match=r"^optim_sches\.conf: updated_modules: 'encoder' matches no"):
        build(updated_modules="encoder")
    with pytest.raises(ParameterError, match=r"^optim_sches\.conf: the model has no trainable parameter"):
        build_optim_sches(nn.ReLU(), {"conf": CONF}, use_amp=False)


def test_R38_an_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        build_optim_sches(a_model(), {"conf": CONF}, acum_grad=2)
    assert str(caught.value) == (
        "build_optim_sches takes no 'acum_grad'. Did you mean 'accum_grad'? "
        "Known: accum_grad, distributed, ft_factor, grad_clip, grad_norm_type, use_amp."
    )
    with pytest.raises(
        ConfigError, match=r"^optim_sches\.conf: Noamlr takes no 'warmup_step'\. Did you mean 'w"
    ):
        build({"type": "noam.Noamlr", "conf": {**CONF, "warmup_step": 3}})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lr", "Write lr in optim_conf. Known: optim_conf, "),
        ("learning_rate", "Write lr in optim_conf. Known: "),
        ("weight_decay", "Write weight_decay in optim_conf. Known: "),
        ("optimizer", "Did you mean 'optim_type'? Known: optim_type, "),
        ("lr_scheduler", "Did you mean 'schedule'? Known: "),
        ("gradient_accumulation_steps", "Did you mean 'accum_grad'? Known: "),
        ("max_grad_norm", "Did you mean 'grad_clip'? Known: "),
        ("bf16", "Did you mean 'use_amp'? Known: "),
        ("warmup", "Did you mean 'warmup_steps'? Known: "),
    ],
)
def test_R38_what_others_call_otherwise_is_answered_with_our_name(key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Noamlr("Adam", {"lr": 1e-3}, a_model(), use_amp=False, **{key: 1})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"Noamlr takes no '{key}'. {hint}")
    with pytest.raises(
        ConfigError, match=r"^optim_conf: Adam takes no 'learning_rate'\. Did you mean 'lr'\?"
    ):
        OptimScheduler("Adam", {"learning_rate": 1e-3}, a_model(), use_amp=False)


def test_R38_a_key_that_is_no_text_is_an_unknown_key() -> None:
    with pytest.raises(ConfigError, match=r"^optim_sches\.conf"):
        build({"conf": {**CONF, 3: 4}})


def test_the_table_of_types_cannot_be_changed_by_what_is_built() -> None:
    assert set(TYPES) == {"OptimScheduler", "exp.ExponentDecayLr", "noam.NoamLr", "noam.Noamlr"}


def test_it_builds_on_the_meta_device() -> None:
    optim = build_optim_sches(a_model().to("meta"), {"conf": CONF})["main"]
    assert all(p.device == torch.device("meta") for p in optim.owned.by_name.values())
