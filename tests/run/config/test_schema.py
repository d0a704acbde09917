"""What may stand in a configuration; the messages are in `test_bad_input.py`, those of odd shapes here."""

from __future__ import annotations

from typing import Any

import pytest

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.overrides import apply_overrides
from optimscheduler.run.config.schema import read_config, with_free_of, without_free
from optimscheduler.run.config.strict_yaml import read_text, write_text
from tests.run.command import YAML, config_of

LEAST: dict[str, Any] = {
    "num_epochs": 7,
    "train_cfg": {"model": {"type": "a.B"}, "optim_sches": {"conf": {}}},
    "data_cfg": {"train": {"type": "a.C"}, "batch_size": 16},
}


def test_defaults_are_the_origins_and_written_out() -> None:
    assert read_config(LEAST, "here").plain() == {
        "seed": 0,
        "num_epochs": 7,
        "num_steps": None,
        "accum_grad": None,
        "samples_per_update": None,
        "tokens_per_update": None,
        "ft_factor": 1.0,
        "grad_clip": 1.0,
        "grad_norm_type": 2.0,
        "use_amp": True,
        "average": None,
        "device": "auto",
        "distributed": "ddp",
        "threads": None,
        "partial_window": "apply",
        "checkpoint_every": 50,
        "save_in_background": True,
        "keep": 2,
        "keep_best": 0,
        "monitor": "loss",
        "mode": "min",
        "on_nonfinite": "skip",
        "log_every": 10,
        "tensorboard": False,
        "train_cfg": {
            "model": {"type": "a.B", "conf": {}},
            "optim_sches": {"conf": {}},
            "weight": None,
        },
        "data_cfg": {
            "train": {"type": "a.C", "conf": {}},
            "valid": None,
            "batch_size": 16,
            "valid_batch_size": None,
            "num_workers": 0,
        },
    }


def test_what_is_resolved_and_written_reads_back_as_the_same() -> None:
    config = config_of("grad_norm_type=.inf", "data_cfg.train.conf=")
    assert read_config(read_text(write_text(config.plain()), "again"), "again") == config


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("accum_grad=2.0", 2),
        ("num_epochs=1e2", 100),
        ("grad_clip=null", None),
        ("grad_clip=5", 5.0),
        ("grad_norm_type=inf", "inf"),
        ("use_amp=bf16", "bf16"),
        ("use_amp=true", True),
        ("threads=4", 4),
        ("partial_window=carry", "carry"),
    ],
)
def test_values_that_are_allowed(override: str, value: object) -> None:
    read = config_of(override).plain()[override.partition("=")[0]]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("accum_grad=true", "accum_grad must be a whole number of batches >= 1, got True"),
        (
            "accum_grad=host",
            "accum_grad: 'host' is for a loop of your own, or a Trainer's, that says where a window ends; a "
            "run ends its windows itself: write a whole number of batches >= 1, or leave it out",
        ),
        ("use_amp=1", "use_amp must be true, false, 'fp16' or 'bf16', got 1"),
        (
            "grad_clip=0",
            "grad_clip must be a finite number > 0, null, or like {value: 0.5}, got 0",
        ),
        (
            "grad_clip=.inf",
            "grad_clip must be a finite number > 0, null, or like {value: 0.5}, got inf",
        ),
        ("grad_norm_type=0.5", "grad_norm_type must be a number >= 1, or 'inf', got 0.5"),
        ("grad_norm_type=.nan", "grad_norm_type must be a number >= 1, or 'inf', got nan"),
        ("ft_factor=0", "ft_factor must be a finite number > 0, got 0"),
        (
            "seed=9223372036854775808",
            "seed must be a whole number from 0 to 2^63 - 1, got 9223372036854775808",
        ),
        ("device=''", "device must be 'auto', 'cpu', 'cuda' or 'cuda:1', got ''"),
        ("partial_window=keep", "partial_window must be 'apply', 'carry' or 'drop', got 'keep'"),
        ("tensorboard='true'", "tensorboard must be true or false, got 'true'"),
        ("data_cfg=3", "data_cfg must be a mapping with 'train' and 'batch_size', got 3"),
        ("data_cfg.train=a.B", "data_cfg.train must be a mapping with 'type' and 'conf', got 'a.B'"),
        ("data_cfg.valid={}", "data_cfg.valid.type is missing; give the dotted path of a class"),
        ("data_cfg.valid=3", "data_cfg.valid must be a mapping with 'type' and 'conf', or null, got 3"),
        (
            "data_cfg.train.conf=[1]",
            "data_cfg.train.conf must be a mapping of argument names to values, got [1]",
        ),
        ("data_cfg.train.conf={1: 2}", "data_cfg.train.conf must be a mapping of argument names"),
        ("data_cfg={1: 2, train: {type: a.B}, batch_size: 1}", "data_cfg.1: unknown key"),
        ('data_cfg={"\\e[2J": 2, train: {type: a.B}, batch_size: 1}', r"data_cfg.'\x1b[2J': unknown key"),
        (f"{'x' * 1000}=1", f"'{'x' * 79}: unknown key"),
        (
            "train_cfg.optim_sches=",
            "train_cfg.optim_sches must be a mapping with 'type' and 'conf', got None",
        ),
        ("train_cfg.model={conf: {}}", "train_cfg.model.type is missing"),
        ("optim_sches={}", "optim_sches: unknown key. Write optim_sches in train_cfg."),
        ("guard=6", "guard: unknown key. Write guard in train_cfg.optim_sches.conf."),
        ("warmup_steps=9", "warmup_steps: unknown key. Write warmup_steps in train_cfg.optim_sches.conf."),
        ("lr=1e-3", "lr: unknown key. Write lr in train_cfg.optim_sches.conf.optim_conf."),
        (
            "learning_rate=1e-3",
            "learning_rate: unknown key. Write lr in train_cfg.optim_sches.conf.optim_conf.",
        ),
        ("scheduler=x", "scheduler: unknown key. Write schedule in train_cfg.optim_sches.conf."),
        ("optimizer=Adam", "optimizer: unknown key. Write optim_type in train_cfg.optim_sches.conf."),
        ("model={}", "model: unknown key. Write model in train_cfg."),
        ("batch=8", "batch: unknown key. Write batch_size in data_cfg."),
        ("data_cfg.batch=8", "data_cfg.batch: unknown key. Did you mean 'batch_size'? Known: "),
        (
            "grad_clip={valu: 0.5}",
            "grad_clip: unknown key 'valu'. Did you mean 'value'? Known: agc, eps, norm, value.",
        ),
        ("grad_clip={agc: 0}", "grad_clip: agc must be a finite number > 0, got 0"),
        ("data_cfg.epochs=8", "data_cfg.epochs: unknown key. Write num_epochs at the top, beside train_cfg."),
        ("train_cfg.seed=8", "train_cfg.seed: unknown key. Write seed at the top, beside train_cfg."),
        ("epochs=8", "epochs: unknown key. Did you mean 'num_epochs'? Known: num_epochs, "),
        ("max_epochs=8", "max_epochs: unknown key. Did you mean 'num_epochs'? Known: num_epochs, "),
        ("max_steps=8", "max_steps: unknown key. Did you mean 'num_steps'? Known: num_steps, "),
        ("accumulate_grad_batches=8", "accumulate_grad_batches: unknown key. Did you mean 'accum_grad'?"),
        ("gradient_clip_val=8", "gradient_clip_val: unknown key. Did you mean 'grad_clip'?"),
        ("clip_grad_norm=8", "clip_grad_norm: unknown key. Did you mean 'grad_clip'?"),
        ("precision=bf16", "precision: unknown key. Did you mean 'use_amp'?"),
        ("fp16=true", "fp16: unknown key. Did you mean 'use_amp'?"),
        ("type=x", "type: unknown key. Known: "),
        (
            "accum_grad='2'",
            "accum_grad must be a whole number of batches >= 1, got '2'; write it without quotes",
        ),
        (
            "grad_clip='1e-2'",
            "grad_clip must be a finite number > 0, null, or like {value: 0.5}, got '1e-2'; write it without",
        ),
        ("partial_window='2'", "partial_window must be 'apply', 'carry' or 'drop', got '2'"),
        ("data_cfg.num_workers=-1", "data_cfg.num_workers must be a whole number from 0 to 1024, got -1"),
    ],
)
def test_the_message_has_place_value_and_what_is_allowed(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(override)
    assert str(error.value).startswith(f"test: {says}")
    assert "\n" not in str(error.value)


def test_a_key_of_one_of_several_members_is_told_to_be_of_one_of_them() -> None:
    members = "train_cfg.optim_sches={body: {conf: {}}, head: {conf: {}}}"
    with pytest.raises(
        ConfigError, match=r"^test: guard: unknown key\. Write guard in train_cfg\.optim_sches\.NAME"
    ):
        config_of(members, "guard=6")
    with pytest.raises(ConfigError, match=r"Write guard in train_cfg\.optim_sches\.conf\.$"):
        read_config({"guard": 6, "train_cfg": 3}, "test")


def test_every_mistake_has_its_line_and_no_more_than_one() -> None:
    with pytest.raises(ConfigError) as error:
        read_config({**LEAST, "use_amp": 3, "num_epochs": 0, "sed": 1}, "here")
    assert str(error.value).splitlines() == [
        "here:",
        "  num_epochs must be a whole number of epochs >= 1, got 0",
        "  use_amp must be true, false, 'fp16' or 'bf16', got 3",
        "  sed: unknown key. Did you mean 'seed'? Known: seed, accum_grad, average, checkpoint_every, "
        "data_cfg, device, distributed, ft_factor, grad_clip, grad_norm_type, keep, keep_best, "
        "and 14 more.",
    ]


def test_settings_that_may_change_freely_are_told_apart() -> None:
    ours = config_of().plain()
    freely = ["num_epochs=9", "device=auto", "threads=null", "checkpoint_every=7", "keep=1", "log_every=3"]
    freely += ["tensorboard=true", "data_cfg.num_workers=2", "keep_best=1", "monitor=largest", "mode=max"]
    freely += ["on_nonfinite=raise", "save_in_background=false"]
    theirs = config_of(*freely).plain()
    assert without_free(ours) == without_free(theirs)
    assert with_free_of(ours, theirs) == theirs
    for override in [
        "seed=1",
        "accum_grad=3",
        "data_cfg.batch_size=5",
        "train_cfg.weight=items",
        "grad_clip=2",
    ]:
        assert without_free(config_of(override).plain()) != without_free(ours)


def test_the_origins_settings_are_handed_to_the_members() -> None:
    assert config_of("ft_factor=0.5", "grad_clip=null").experiment(1) == {
        "use_amp": False,
        "accum_grad": 1,
        "ft_factor": 0.5,
        "grad_clip": None,
        "grad_norm_type": 2.0,
    }


def test_a_merged_configuration_is_one() -> None:
    text = YAML.replace("  valid: {type: tests.run.tiny.Points, conf: {count: 6}}", "  valid: {<<: *t}")
    text = text.replace("train: {type: tests.run.tiny.Points", "train: &t {type: tests.run.tiny.Points")
    merged = read_config(apply_overrides(read_text(text, "t"), []), "t").data_cfg
    assert merged.valid == merged.train
