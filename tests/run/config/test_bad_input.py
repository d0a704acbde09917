"""Every mistake that a user can make: one message that says where, what and what is allowed; exit code 2."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.run.command import YAML, Said, call, copied, write

CONF = "train_cfg.optim_sches.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A configuration with one mistake.

    Args:
        overrides: what is changed.
        says: parts of the message, in order.
    """

    overrides: tuple[str, ...]
    says: tuple[str, ...]


def bad(*overrides: str, says: tuple[str, ...]) -> Bad:
    return Bad(overrides=overrides, says=says)


SETTINGS = {
    # unknown keys, at every depth
    "key at the top": bad("acum_grad=2", says=("tiny.yaml: acum_grad: unknown key", "'accum_grad'")),
    "key of a section": bad("train_cfg.modle=1", says=("train_cfg.modle: unknown key", "'model'")),
    "key of a class": bad("data_cfg.train.cnof={}", says=("data_cfg.train.cnof: unknown key", "'conf'")),
    "key at a wrong place": bad(
        "batch_size=2", says=("batch_size: unknown key", "Write batch_size in data_cfg.")
    ),
    "key of the model": bad(
        "train_cfg.model.conf={wdith: 3}", says=("train_cfg.model.conf: Tiny takes no 'wdith'", "'width'")
    ),
    "key of the data": bad(
        "data_cfg.train.conf={cuont: 3}", says=("data_cfg.train.conf: Points takes no 'cuont'", "'count'")
    ),
    "key of the member": bad(
        "train_cfg.optim_sches.cnof=3", says=("train_cfg.optim_sches: unknown key 'cnof'", "'conf'")
    ),
    "key of the curve": bad(f"{CONF}.wamup_steps=3", says=(CONF, "takes no 'wamup_steps'", "'warmup_steps'")),
    "key of the optimizer": bad(
        f"{CONF}.optim_conf.beats=3", says=(CONF, "optim_conf", "Adam takes no 'beats'", "'betas'")
    ),
    "key of a group": bad(
        f"{CONF}.param_groups=[{{ndim: '<2', wieght_decay: 0}}]",
        says=(CONF, "param_groups: unknown key 'wieght_decay'", "'weight_decay'"),
    ),
    "key of a schedule": bad(
        "train_cfg.optim_sches={conf: {optim_type: SGD, optim_conf: {lr: 1}, schedule: Cosine(stesp=3)}}",
        says=(CONF, "schedule", "Cosine takes no 'stesp'", "'steps'"),
    ),
    # keys that are known at another level
    "key of the top in a member": bad(
        f"{CONF}.on_nonfinite=raise",
        says=(f"{CONF}: Noamlr takes no 'on_nonfinite'. Write on_nonfinite at the top, beside train_cfg.\n",),
    ),
    "key of the top, as others call it": bad(
        f"{CONF}.max_epochs=3",
        says=(f"{CONF}: Noamlr takes no 'max_epochs'. Write num_epochs at the top, beside train_cfg.\n",),
    ),
    "key of the top beside a type": bad(
        "train_cfg.optim_sches.seed=3",
        says=("train_cfg.optim_sches: unknown key 'seed'. Write seed at the top, beside train_cfg.\n",),
    ),
    "key of a member beside its type": bad(
        "train_cfg.optim_sches.guard=3",
        says=("train_cfg.optim_sches: unknown key 'guard'", f"Write guard in {CONF}.\n"),
    ),
    "key of a member at the top": bad(
        "guard=6", says=("tiny.yaml: guard: unknown key", f"Write guard in {CONF}.\n")
    ),
    "key of a member in the optimizer": bad(
        f"{CONF}.optim_conf.guard=6",
        says=(f"{CONF}: optim_conf: Adam takes no 'guard'. Write guard in {CONF}.\n",),
    ),
    "key of the data in a member": bad(
        f"{CONF}.batch_size=6",
        says=(f"{CONF}: Noamlr takes no 'batch_size'. Write batch_size in data_cfg.\n",),
    ),
    "key of the data in a data set": bad(
        "data_cfg.train.conf.batch_size=6",
        says=("data_cfg.train.conf: Points takes no 'batch_size'. Write batch_size in data_cfg.\n",),
    ),
    "key of a member in the model": bad(
        "train_cfg.model.conf={grad_clip: 1}",
        says=("train_cfg.model.conf: Tiny takes no 'grad_clip'. Write grad_clip at the top",),
    ),
    "key of the optimizer in a member": bad(
        f"{CONF}.lr=3", says=(f"{CONF}: Noamlr takes no 'lr'. Write lr in optim_conf. Known: optim_conf",)
    ),
    "key of another class": bad(
        "train_cfg.optim_sches.type=OptimScheduler",
        says=(f"{CONF}: OptimScheduler takes no 'warmup_steps'. Did you mean ",),
    ),
    "key of another optimizer": bad(
        f"{CONF}.optim_type=SGD",
        f"{CONF}.optim_conf.betas=[0.9, 0.9]",
        says=(f"{CONF}: optim_conf: SGD takes no 'betas'. Known: ",),
    ),
    "key of the member, as others call it": bad(
        f"{CONF}.lr_scheduler=x",
        says=(f"{CONF}: Noamlr takes no 'lr_scheduler'. Did you mean 'schedule'? Known: ",),
    ),
    "key of the optimizer, as others call it": bad(
        f"{CONF}.optim_conf={{learning_rate: 3}}",
        says=(f"{CONF}: optim_conf: Adam takes no 'learning_rate'. Did you mean 'lr'? Known: amsgrad, ",),
    ),
    "key of a group, as others call it": bad(
        f"{CONF}.param_groups=[{{ndim: '<2', learning_rate: 0}}]",
        says=(f"{CONF}: param_groups: unknown key 'learning_rate'. Did you mean 'lr'? Known: ",),
    ),
    # numbers out of range
    "no warm-up": bad(f"{CONF}.warmup_steps=0", says=(CONF, "warmup_steps", "whole number", ">= 1, got 0")),
    "warm-up below 0": bad(f"{CONF}.warmup_steps=-5", says=(CONF, "warmup_steps", ">= 1, got -5")),
    "warm-up in words": bad(f"{CONF}.warmup_steps=long", says=(CONF, "warmup_steps", "got 'long'")),
    "warm-up NaN": bad(f"{CONF}.warmup_steps=.nan", says=(CONF, "warmup_steps", "got nan")),
    "lr 0": bad(f"{CONF}.optim_conf.lr=0", says=(CONF, "lr must be a finite number > 0, got 0")),
    "lr in words": bad(f"{CONF}.optim_conf.lr=small", says=(CONF, "lr must be", "got 'small'")),
    "lr in quotes": bad(
        f"{CONF}.optim_conf.lr='1e-2'",
        says=(f"{CONF}: optim_conf: lr must be", "got '1e-2'; write it without quotes\n"),
    ),
    "momentum without an end": bad(
        f"{CONF}.optim_type=SGD",
        f"{CONF}.optim_conf.momentum=1{'0' * 400}",
        says=(f"{CONF}: optim_conf: momentum must be finite, got 1000",),
    ),
    "accum_grad 0": bad("accum_grad=0", says=("accum_grad must be a whole number of batches >= 1, got 0",)),
    "accum_grad 2.5": bad("accum_grad=2.5", says=("accum_grad must be a whole number", "got 2.5")),
    "accum_grad host": bad("accum_grad=host", says=("accum_grad: 'host' is for a loop of your own",)),
    "a member's host": bad(
        f"{CONF}.accum_grad=host", says=(f"{CONF}.accum_grad: 'host' is for", "write a whole number")
    ),
    "accum_grad text": bad("accum_grad='2'", says=("accum_grad must be a whole number", "got '2'")),
    "no epochs": bad("num_epochs=null", says=("num_epochs must be a whole number of epochs >= 1, got None",)),
    "precision": bad("use_amp=fp8", says=("use_amp must be true, false, 'fp16' or 'bf16', got 'fp8'",)),
    "two at once": bad("accum_grad=0", "seed=-1", says=("tiny.yaml:", "seed must be", "accum_grad must be")),
    "a value the model refuses": bad(
        "train_cfg.model.conf={width: 0}", says=("train_cfg.model.conf: Tiny refuses this", "not 0")
    ),
    "no device of this kind": bad("device=vulkan", says=("device: 'vulkan' cannot be used here",)),
    "no such device": bad("device=tpux", says=("device: 'tpux' cannot be used here", "write auto or cpu")),
    "no device with numbers": bad("device=meta", says=("device: 'meta' holds no numbers",)),
    "nothing left of an epoch": bad(
        "partial_window=drop",
        "accum_grad=9",
        says=("partial_window: 'drop'", "5 batches, fewer than accum_grad=9"),
    ),
    "a curve that is no number": bad(
        "train_cfg.optim_sches={type: tests.run.tiny.NanLr, conf: {optim_type: SGD, optim_conf: {lr: 1}}}",
        says=("train_cfg.optim_sches: NanLr.update_lr(real_step=3, epoch_num=1) returned nan",),
    ),
    # classes
    "no module": bad("train_cfg.model.type=tiyn.Tiny", says=("train_cfg.model.type", "no module 'tiyn'")),
    "no class": bad("train_cfg.model.type=tests.run.tiny.Tyni", says=("train_cfg.model.type", "'Tiny'")),
    "a conf without anything": bad(
        f"{CONF}=",
        says=(f"{CONF}: Noamlr needs 'optim_type' and 'optim_conf'", "write for example {optim_type"),
    ),
    "no name": bad(f"{CONF}.optim_type=3", says=(CONF, "optim_type must be the name of an Optimizer, got 3")),
    "a function that ends the process": bad(
        "train_cfg.optim_sches={conf: {optim_type: SGD, optim_conf: {lr: 1}, "
        "schedule: 'Custom(\"os._exit\")'}}",
        says=(
            f"{CONF}: schedule: Custom: fn: 'os._exit' may not be called from here. Name a function of math",
        ),
    ),
    "no path": bad("train_cfg.model.type=Tiny", says=("train_cfg.model.type: 'Tiny' is not a dotted path",)),
    "model of another kind": bad(
        "train_cfg.model.type=tests.run.tiny.Points", says=("train_cfg.model.type", "but needed here: Module")
    ),
    "function for a model": bad(
        "train_cfg.model.type=tests.run.tiny.halved", says=("train_cfg.model.type", "but needed here: Module")
    ),
    "data of another kind": bad(
        "data_cfg.valid.type=tests.run.tiny.Sized", says=("data_cfg.valid.type", "but needed here: Dataset")
    ),
    "a stream": bad(
        "data_cfg.train={type: tests.run.tiny.Endless}",
        says=("data_cfg.train.type: Endless has no length", "map-style"),
    ),
    "optimizer of another kind": bad(
        f"{CONF}.optim_type=torch.nn.Linear", says=(CONF, "optim_type", "but needed here: Optimizer")
    ),
    "no optimizer": bad(f"{CONF}.optim_type=SDG", says=(CONF, "optim_type", "'SDG'", "'SGD'")),
    "member of another kind": bad(
        "train_cfg.optim_sches.type=tests.run.tiny.Tiny",
        says=("train_cfg.optim_sches.type", "but needed here: OptimScheduler"),
    ),
    "schedule of another kind": bad(
        "train_cfg.optim_sches={conf: {optim_type: SGD, optim_conf: {lr: 1}, "
        "schedule: {type: tests.run.tiny.Tiny}}}",
        says=(CONF, "schedule", "needed here: Schedule or FeedbackSchedule"),
    ),
    # models, losses, parameters
    "modules that are not there": bad(
        f"{CONF}.updated_modules=frist",
        says=(CONF, "updated_modules: 'frist' matches no parameter", "'first'"),
    ),
    "no such loss": bad(f"{CONF}.optim_loss=los", says=("there is no loss 'los'", "'loss'")),
    "loss without gradient": bad(
        "train_cfg.model.type=tests.run.tiny.NoGradient", says=("loss 'loss' needs no gradient",)
    ),
    "no dict of losses": bad(
        "train_cfg.model.type=tests.run.tiny.ReturnsTensor",
        says=("train_cfg.model.type: ReturnsTensor returned a Tensor", "dict"),
    ),
    "no such weight": bad(
        "train_cfg.weight=itmes", says=("train_cfg.weight: the model returned no 'itmes'",)
    ),
    "nothing to train": bad(
        "train_cfg.model.type=tests.run.tiny.Frozen", says=(CONF, "no trainable parameter")
    ),
    "no data": bad(
        "data_cfg.train.conf.count=0", says=("data_cfg.train: Points is empty", "data_cfg.train.conf")
    ),
    "data without a length": bad(
        "data_cfg.valid.type=torch.utils.data.TensorDataset",
        "data_cfg.valid.conf={}",
        says=("data_cfg.valid: TensorDataset does not say how long it is: IndexError",),
    ),
    "data that cannot be made": bad(
        "data_cfg.train.conf.count=-1", says=("data_cfg.train.conf: Points refuses this: RuntimeError",)
    ),
    "too many processes": bad("data_cfg.num_workers=10000", says=("data_cfg.num_workers", "from 0 to 1024")),
    "no held-out data": bad("data_cfg.valid.conf.count=0", says=("data_cfg.valid: Points is empty",)),
    # overrides
    "no override": bad("accum_grad", says=("'accum_grad' is no override", "path.to.key=value")),
    "spaces around the sign": bad(
        "num_epochs", "=", "3", says=("'num_epochs' is no override", "without spaces")
    ),
    "broken override": bad("seed=[1", says=("the override 'seed=[1'", "line 1")),
}


def refused(said: Said, parts: tuple[str, ...]) -> None:
    """One message with these parts in this order, and nothing that looks like a traceback."""
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.out + said.err
    at = 0
    for part in parts:
        assert part in said.err[at:], (part, said.err)
        at += said.err[at:].index(part)


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS.keys())
def test_B25_a_wrong_setting_is_one_message_and_exit_code_2(case: Bad, tmp_path: Path) -> None:
    refused(call("train", write(tmp_path), *case.overrides, "--out", tmp_path / "run"), case.says)


WRITTEN = {
    "duplicate key": (
        YAML + "seed: 4\n",
        ("tiny.yaml line 21: duplicate key 'seed', first given in line 1",),
    ),
    "duplicate inner key": ("a: {b: 1,\n b: 2}", ("line 2: duplicate key 'b', first given in line 1",)),
    "broken": ("seed: 3\n  num_epochs: 3\n", ("tiny.yaml line 2: mapping values are not allowed",)),
    "unclosed": ("seed: [3\nnum: 3\n", ("tiny.yaml line 2", "expected ',' or ']'")),
    "unknown tag": ("seed: 1\nmodel: !new:a.B {}", ("tiny.yaml line 2: the tag '!new:a.B' is not known",)),
    "python tag": ("a: !!python/name:os.system", ("line 1: the tag", "python/name:os.system' is not known")),
    "ambiguous word": ("use_amp: no", ("line 1: 'no' is a truth value to some", "true or false")),
    "code of no character": (
        'seed: 1\nuse_amp: "\\U00110000"',
        ("tiny.yaml line 2: an escape that is the code of no character",),
    ),
    "no mapping": ("[1, 2]", ("a configuration is a mapping (key: value), got [1, 2]",)),
    "nothing": ("", ("a configuration is a mapping (key: value), got None",)),
}


@pytest.mark.parametrize(("text", "says"), WRITTEN.values(), ids=WRITTEN.keys())
@pytest.mark.parametrize("command", ["train", "explain", "plot"])
def test_a_file_that_cannot_be_read_is_told_with_its_line(
    command: str, text: str, says: tuple[str, ...], tmp_path: Path
) -> None:
    refused(call(command, write(tmp_path, text)), says)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    refused(call("train", tmp_path / "nowhere.yaml"), ("nowhere.yaml: cannot be read: No such file",))


def test_a_run_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(
        call("train", write(tmp_path), "--out", tmp_path / "file" / "run"),
        ("the run folder", "cannot be written: Not a directory", "--out"),
    )


def test_a_module_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken_model.py").write_text("class Model(\n")
    (tmp_path / "needy_model.py").write_text("import torch\nfrom torch import no_such_thing_at_all\n")
    path = write(tmp_path)
    refused(
        call("explain", path, "train_cfg.model.type=broken_model.Model"),
        ("train_cfg.model.type", "broken_model.py line 1 cannot be read: '(' was never closed"),
    )
    refused(
        call("explain", path, "train_cfg.model.type=needy_model.Model"),
        ("train_cfg.model.type: 'needy_model.Model' cannot be imported", "no_such_thing_at_all"),
    )


def test_B25_an_lr_of_1e_4_written_so_is_a_number(tmp_path: Path) -> None:
    said = call("explain", write(tmp_path, YAML.replace("lr: 1e-2", "lr: 1e-4")))
    assert said.code == 0
    assert "peak 0.0001 at 3" in said.out


def test_a_link_to_nothing_in_the_run_folder_is_a_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").symlink_to(tmp_path / "gone")
    said = call("train", write(tmp_path), "--out", tmp_path / "run")
    assert said.code == 2
    assert "holds files already" in said.err


def test_a_file_of_the_run_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "run" / "source.txt").mkdir(parents=True)
    (tmp_path / "run" / "source.txt" / "x").touch()
    said = call("train", write(tmp_path), "--out", tmp_path / "run", "--resume")
    assert said.code == 2
    assert f"the run folder {tmp_path / 'run'} cannot be written: " in said.err


def test_a_checkpoint_of_another_model_lists_the_differences(trained: Path, tmp_path: Path) -> None:
    again = ["train", write(tmp_path), "num_epochs=1", "--out", copied(trained, tmp_path), "--resume"]
    wider = [*again, "train_cfg.model.conf={width: 7}"]
    refused(
        call(*wider), ("another configuration", "train_cfg.model.conf.width: missing in the checkpoint, 7")
    )
    refused(
        call(*wider, "--on-mismatch", "config"),
        ("another model", "first.weight: [6, 4] in the checkpoint, [7, 4] here", "second.weight: [1, 6]"),
    )


def test_a_checkpoint_of_another_configuration_lists_the_differences(trained: Path, tmp_path: Path) -> None:
    again = ("train", write(tmp_path), "num_epochs=1", "--out", copied(trained, tmp_path), "--resume")
    refused(
        call(*again, f"{CONF}.warmup_steps=9", "accum_grad=3"),
        (
            "accum_grad: 2 in the checkpoint, 3 in the configuration",
            f"{CONF}.warmup_steps: 3 in the checkpoint, 9 in the configuration",
            "--on-mismatch config",
            "--on-mismatch checkpoint",
        ),
    )


@pytest.mark.slow
def test_a_mistake_prints_no_traceback_in_a_process_of_its_own_either(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "optimscheduler", "train", str(write(tmp_path)), "accum_grad=2.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path / 'tiny.yaml'}: accum_grad must be a whole number of batches >= 1, got 2.5\n"
    )
