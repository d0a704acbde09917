"""A run that ends at a step, one that goes on with another curve, and a cool-down branched off."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from optimscheduler.errors import ConfigError
from optimscheduler.run.checkpoint.reader import content_of
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.commands import anneal
from optimscheduler.run.plan.duration import Horizon
from optimscheduler.run.plan.lr_continuity import LrChange
from tests.run.command import YAML, call, config_of, last_state, metrics, without_seconds, write

# 18 items in batches of 4: 5 batches, 3 windows per epoch, the last of one batch
WSD = YAML.replace(
    """    type: noam.Noamlr
    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2}
      warmup_steps: 3
""",
    """    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2}
      schedule: WarmupStableDecay(warmup=1, stable="rest", decay=3)
""",
).replace("checkpoint_every: 2", "checkpoint_every: 1\nkeep: 20")
LINEAR = WSD.replace('WarmupStableDecay(warmup=1, stable="rest", decay=3)', "Linear(steps=9)")


def rates(folder: Path) -> list[float]:
    return [record["lr"] for record in metrics(folder)]


# ---- a run that ends at a step ----


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("steps", range(1, 12))
def test_a_horizon_of_steps_ends_with_that_window(steps: int, carry: bool) -> None:
    config = config_of(f"num_steps={steps}", f"partial_window={'carry' if carry else 'apply'}")
    horizon = Horizon.of(config, batches=5, accum_grads={2})
    whole = 8 if carry else 9  # 15 batches in windows of two, or three windows in each epoch of five
    assert horizon.windows == min(steps, whole)
    closed, windows = [], 0
    for epoch in range(1, 4):
        for batch in range(1, horizon.batches_of(epoch) + 1):
            if horizon.is_over(epoch, batch - 1):
                break
            number = (epoch - 1) * 5 + batch if carry else batch
            ends = number % 2 == 0 or horizon.ends_window(epoch, batch)
            windows += ends
            closed.append(windows)
            assert horizon.windows_before(epoch, batch) == windows
    assert windows == horizon.windows


@pytest.mark.parametrize("steps", [2, 3, 4, 6])
def test_ended_at_a_step_and_made_longer_is_one_long_run(tmp_path: Path, steps: int) -> None:
    """With a schedule in real steps; whatever the step, also at the end of an epoch."""
    config = write(tmp_path, LINEAR)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call("train", config, "--out", whole).code == 0
    assert call("train", config, f"num_steps={steps}", "--out", parts).code == 0
    assert len(metrics(parts)) == steps
    assert call("train", config, "--out", parts, "--resume").code == 0
    assert without_seconds(metrics(parts)) == without_seconds(metrics(whole))
    for name, weight in last_state(whole)["model"].items():
        assert torch.equal(last_state(parts)["model"][name], weight)


def test_a_run_at_its_end_says_what_makes_it_longer(tmp_path: Path) -> None:
    config = write(tmp_path, LINEAR)
    call("train", config, "num_steps=2", "--out", tmp_path / "run")
    said = call("train", config, "num_steps=2", "--out", tmp_path / "run", "--resume")
    assert "finished   this run was at its end already; a larger num_epochs or num_steps" in said.out


# ---- a run that goes on with another curve ----


def test_a_longer_run_shows_the_joint_and_refuses_a_jump(tmp_path: Path) -> None:
    config, out = write(tmp_path, WSD), tmp_path / "run"
    assert call("train", config, "--out", out).code == 0
    before = rates(out)
    # held from 1 to 6, then 2/3, 1/3, 0 of it
    assert before == pytest.approx([0.01] * 6 + [0.02 / 3, 0.01 / 3, 0.0])
    said = call("train", config, "num_epochs=5", "--out", out, "--resume")
    assert said.code == 2
    assert said.err == (
        "error: the learning rate would jump where the run goes on:\n"
        "  main: lr 0 at real step 9, 0.01 at 10 (it would have been 0)\n"
        "Change the schedule, or type in addition:\n"
        "  --allow-jump   to go on with it\n"
    )
    assert "here it goes on" in said.out
    assert rates(out) == before, "nothing was trained"
    assert call("train", config, "num_epochs=5", "--out", out, "--resume", "--allow-jump").code == 0
    assert rates(out)[9:] == pytest.approx([0.01] * 3 + [0.02 / 3, 0.01 / 3, 0.0])


def test_stopped_before_the_decay_a_run_is_made_longer_without_a_jump(tmp_path: Path) -> None:
    config, out = write(tmp_path, WSD), tmp_path / "run"
    call("train", config, "num_steps=9", "--out", tmp_path / "short")
    path = tmp_path / "short" / "checkpoints"
    for checkpoint in sorted(path.iterdir())[5:]:  # what a run would hold that was stopped at its 5th window
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    (tmp_path / "short").rename(out)
    said = call("train", config, "num_epochs=5", "--out", out, "--resume")
    assert said.code == 0, said.err
    assert "joint      main: lr 0.01 at real step 5, 0.01 at 6" in said.out
    assert rates(out) == pytest.approx([0.01] * 12 + [0.02 / 3, 0.01 / 3, 0.0])


def test_a_changed_schedule_is_reported_with_both_values(tmp_path: Path) -> None:
    out = tmp_path / "run"
    call("train", write(tmp_path, LINEAR), "num_steps=3", "--out", out)
    other = write(tmp_path, LINEAR.replace("Linear(steps=9)", "Constant(0.2)"))
    said = call("train", other, "--out", out, "--resume", "--on-mismatch", "config")
    assert said.code == 2
    # 1 - 2/9 at step 3, 1 - 3/9 at step 4
    assert "main: lr 0.007778 at real step 3, 0.002 at 4 (it would have been 0.006667)" in said.err
    said = call("train", other, "--out", out, "--resume", "--on-mismatch", "config", "--allow-jump")
    assert said.code == 0, said.err
    assert rates(out)[3:] == [0.002] * 6


JOINTS = [  # before, after, meant, further -> jumps
    ((1.0, 1.0, 1.0, 1.0), False),
    ((1.0, 1.04, 1.0, 1.04), False),  # less than 5 %
    ((1.0, 1.06, 1.0, 1.06), True),
    ((1.0, 1.06, 0.96, 1.06), False),  # less than twice what the old curve would have made
    ((0.1, 0.2, 0.1, 0.26), False),  # less than twice what the new one makes
    ((0.1, 0.2, 0.1, 0.24), True),
    ((0.0, 0.01, 0.0, 0.01), True),
]


@pytest.mark.parametrize(("values", "jumps"), JOINTS)
def test_what_counts_as_a_jump(values: tuple[float, ...], jumps: bool) -> None:
    before, after, meant, further = values
    joint = LrChange(
        name="main", step=7, before=before, after=after, meant=meant, further=further, old=(), new=()
    )
    assert joint.jumps is jumps


# ---- a cool-down branched off ----


def test_a_cool_down_goes_on_from_the_checkpoint_and_falls(tmp_path: Path) -> None:
    config, out = write(tmp_path, WSD), tmp_path / "run"
    call("train", config, "--out", out)
    left = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    said = call("anneal", out, "--from", 4, "--steps", 4, "--shape", "sqrt", "--floor", 0.2)
    assert said.code == 0, said.err
    cooled = tmp_path / "run-anneal-4"
    records = metrics(cooled)
    assert without_seconds(records[:4]) == without_seconds(metrics(out)[:4]), "the curves join"
    assert [record["real_step"] for record in records] == list(range(1, 9))
    # from s = 5 on 0.01 x (0.2 + 0.8 (1 - sqrt(p))), p = 0, 1/4, 2/4, 3/4
    falls = [0.01 * (0.2 + 0.8 * (1 - p**0.5)) for p in (0, 0.25, 0.5, 0.75)]
    assert rates(cooled)[4:] == pytest.approx(falls)
    assert records[4]["loss"] == metrics(out)[4]["loss"], "the same weights, the same data"
    assert {p: p.read_bytes() for p in left} == left, "the run itself is left as it is"
    assert (cooled / "curves.png").exists()


def test_a_cool_down_may_be_resumed(tmp_path: Path) -> None:
    config, out, cooled = write(tmp_path, WSD), tmp_path / "run", tmp_path / "cooled"
    call("train", config, "--out", out)
    call("anneal", out, "--from", "last", "--steps", 2, "--out", cooled)  # it is over: the rate is 0
    assert not cooled.exists()
    call("anneal", out, "--from", 5, "--steps", 2, "--out", cooled)
    said = call("train", cooled / "config.yaml", "num_steps=9", "--out", cooled, "--resume")
    assert said.code == 0, said.err
    assert rates(cooled)[5:] == pytest.approx([0.01, 0.005, 0.0, 0.0])


def test_a_subclass_that_computes_its_rate_is_cooled_down_from_what_it_has_reached(tmp_path: Path) -> None:
    out = tmp_path / "run"
    call("train", write(tmp_path, YAML), "checkpoint_every=1", "keep=20", "--out", out)
    said = call("anneal", out, "--from", "last", "--steps", 4)
    assert said.code == 0, said.err
    reached = rates(out)[8]
    assert rates(tmp_path / "run-anneal-9")[9:] == pytest.approx([reached * (1 - p / 4) for p in range(4)])


def test_several_optimschedulers_and_groups_cool_down_together(tmp_path: Path) -> None:
    text = WSD.replace(
        """    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2}
      schedule: WarmupStableDecay(warmup=1, stable="rest", decay=3)
""",
        """    one:
      conf:
        optim_type: Adam
        optim_conf: {lr: 1e-2, weight_decay: 0.1}
        updated_modules: first
        schedule: WarmupStableDecay(warmup=1, stable="rest", decay=3)
        schedules: {weight_decay: 'Linear(steps="100%")'}
        param_groups: [{ndim: "<2", schedule: "Constant(0.5)"}]
    two:
      conf:
        optim_type: SGD
        optim_conf: {lr: 1e-2}
        updated_modules: [norm, second]
        accum_grad: 1
        schedule: ReduceOnPlateau(factor=0.5, patience=0)
""",
    )
    out = tmp_path / "run"
    said = call("train", write(tmp_path, text), "--out", out)
    assert said.code == 0, said.err
    said = call("anneal", out, "--from", "5", "--steps", 4)
    assert said.code == 0, said.err
    state = last_state(tmp_path / "run-anneal-5")["optim_sches"]
    conf = state["one"]["config"]
    assert conf["schedule"].startswith("Sequence([(WarmupStableDecay(warmup=1, stable=5, decay=3), ")
    assert conf["schedules"] == {"weight_decay": "Linear(steps=9)"}
    assert conf["param_groups"][0]["schedule"].startswith("Sequence([(Constant(0.5), ")
    assert state["two"]["config"]["schedule"].startswith("Sequence([(Constant(")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "99", "--steps", "4"), "--from: there is no checkpoint of real step 99 in"),
        (
            ("--from", "9", "--steps", "4"),
            "main: the learning rate is 0 at real step 9; there is nothing",
        ),
        (
            ("--from", "5", "--steps", "4", "--shape", "sqr"),
            "CoolDown: shape: 'sqr' is not known. Did you mean",
        ),
        (
            ("--from", "5", "--steps", "4", "--shape", "exponential"),
            "CoolDown: shape 'exponential' needs",
        ),
        (
            ("--from", "5", "--steps", "4", "--floor", "2"),
            "CoolDown: floor must be a finite number >= 0",
        ),
    ],
)
def test_what_cannot_be_branched_off_is_said_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...], message: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "annealed"
    if not folder.exists():
        folder.mkdir()
        call("train", write(folder, WSD), "--out", folder / "run")
    said = call("anneal", folder / "run", *arguments)
    assert said.code == 2
    assert said.err.startswith(f"error: {message}")
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["run"]


def test_a_folder_that_is_no_run_and_one_that_is_taken(tmp_path: Path) -> None:
    said = call("anneal", tmp_path, "--from", 5, "--steps", 4)
    assert said.err.startswith(f"error: {tmp_path} holds no checkpoint of a run")
    call("train", write(tmp_path, WSD), "--out", tmp_path / "run")
    said = call("anneal", tmp_path / "run", "--from", 5, "--steps", 4, "--out", tmp_path / "run")
    assert said.err.startswith(f"error: {tmp_path / 'run'} holds files already")


# ---- damage, and folders that cannot be written ----


def a_run_of_four_windows(folder: Path) -> list[Path]:
    """Its checkpoints, oldest first: of the real steps 1, 2, 3, 4."""
    assert call("train", write(folder, LINEAR), "num_steps=4", "--out", folder / "run").code == 0
    return Checkpoints(folder / "run" / "checkpoints").all()


def truncate(checkpoint: Path, name: str = "plain.json") -> None:
    os.truncate(checkpoint / name, 100)


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["plain.json", "shard-00001-model-00001-of-00001.safetensors"])
def test_the_last_checkpoint_is_the_newest_that_is_whole(tmp_path: Path, name: str) -> None:
    *_, newest = a_run_of_four_windows(tmp_path)
    truncate(newest, name)
    before = inside(tmp_path / "run")
    said = call("anneal", tmp_path / "run", "--from", "last", "--steps", 2)
    assert said.code == 0, said.err
    assert f"warning    {newest} cannot be used: {name} has 100 bytes, and " in said.out
    assert (tmp_path / "run-anneal-3").is_dir()
    assert inside(tmp_path / "run") == before, "nothing is renamed there"


@pytest.mark.parametrize(("damaged", "at"), [(0, "last"), (-1, "2"), (0, "2")])
def test_a_damaged_checkpoint_is_no_matter_for_the_others(tmp_path: Path, damaged: int, at: str) -> None:
    truncate(a_run_of_four_windows(tmp_path)[damaged])
    said = call("anneal", tmp_path / "run", "--from", at, "--steps", 2)
    assert said.code == 0, said.err
    assert (tmp_path / f"run-anneal-{4 if at == 'last' else at}").is_dir()


def test_a_damaged_checkpoint_that_is_asked_for_is_said(tmp_path: Path) -> None:
    first, *others = a_run_of_four_windows(tmp_path)
    truncate(first, "shard-00001-model-00001-of-00001.safetensors")
    (others[-1] / "plain.json").write_text("{}")
    said = call("anneal", tmp_path / "run", "--from", 1, "--steps", 2)
    assert said.code == 2
    assert f"warning    {first} cannot be used: shard-00001" in said.out
    assert f"warning    {others[-1]} cannot be used: plain.json has 2 bytes" in said.out
    assert "--from: there is no checkpoint of real step 1 in" in said.err
    assert "There are: 2, 3, last" in said.err
    for checkpoint in others:
        truncate(checkpoint)
    said = call("anneal", tmp_path / "run", "--from", "last", "--steps", 2)
    assert said.err.startswith("error: --from: there is no whole checkpoint in ")


def test_on_a_full_disk_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run_of_four_windows(tmp_path)
    out = tmp_path / "some" / "where"
    copy = shutil.copyfile

    def full(source: str, target: str, **more: bool) -> object:
        if "safetensors" in str(source):
            raise OSError(errno.ENOSPC, "No space left on device", target)
        return copy(source, target, **more)

    monkeypatch.setattr(shutil, "copyfile", full)
    said = call("anneal", tmp_path / "run", "--from", 2, "--steps", 2, "--out", out)
    assert said.code == 2
    assert said.err.startswith(f"error: {out} cannot be written: [Errno 28] No space left on device: ")
    assert "Choose another folder with --out" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tiny.yaml"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    a_run_of_four_windows(tmp_path)
    command = ("anneal", tmp_path / "run", "--from", 2, "--steps", 2, "--out")
    said = call(*command, tmp_path / "tiny.yaml" / "x")
    assert said.code == 2
    assert f"{tmp_path / 'tiny.yaml' / 'x'} cannot be written: " in said.err
    assert "tiny.yaml holds files already" in call(*command, tmp_path / "tiny.yaml").err
    (tmp_path / "new.tmp").mkdir()
    assert "new.tmp is in the way" in call(*command, tmp_path / "new").err
    assert (tmp_path / "new.tmp").is_dir(), "it may be somebody's"
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run_of_four_windows(tmp_path)
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    said = call("anneal", tmp_path / "run", "--from", 2, "--steps", 2, "--out", ".")
    assert said.code == 0, said.err
    assert "config.yaml" in inside(tmp_path / "new")


def test_num_steps_is_a_whole_number() -> None:
    with pytest.raises(ConfigError, match="num_steps must be a whole number of windows >= 1, or null, got 0"):
        config_of("num_steps=0")


def test_a_checkpoint_whose_configuration_cannot_be_built_any_more_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module was renamed: the user says that the new configuration wins."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("before_it", "after_it"):
        (tmp_path / f"{name}.py").write_text("from tests.run.tiny import Points, Tiny\n")
    out = tmp_path / "run"
    old = write(tmp_path, LINEAR.replace("tests.run.tiny.Tiny", "before_it.Tiny"))
    assert call("train", old, "num_steps=3", "--out", out).code == 0
    (tmp_path / "before_it.py").unlink()
    sys.modules.pop("before_it")
    new = write(tmp_path, LINEAR.replace("tests.run.tiny.Tiny", "after_it.Tiny"))
    said = call("train", new, "--out", out, "--resume", "--on-mismatch", "config")
    assert said.code == 0, said.err
    assert "the learning rate is not compared with the checkpoint's" in said.out
    assert len(metrics(out)) == 9


def test_a_run_of_several_ranks_needs_samples_per_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    call("train", write(tmp_path, WSD), "--out", out)
    monkeypatch.setattr(anneal, "content_of", lambda path: {**content_of(path), "ranks": 2})
    said = call("anneal", out, "--from", 5, "--steps", 4)
    assert said.code == 2
    assert said.err == (
        f"error: {out} was trained by 2 ranks, and anneal runs in one process: for updates of the same size "
        "its configuration must say samples_per_update in place of accum_grad\n"
    )
