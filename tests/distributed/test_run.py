"""Runs of several processes: what they train, what they say, what they save, and who can go on from it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import torch

from optimscheduler.run.checkpoint.retention import Retention
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.data.batches import batch_indices
from tests.distributed.launch import command, free_port, start
from tests.distributed.pool import Pool
from tests.run.command import Said, call, checkpoints, last_state, last_weights, metrics, without_seconds

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.slow]

YAML = """\
seed: 3
num_epochs: 4
samples_per_update: 8
use_amp: false
device: cpu
checkpoint_every: 2
log_every: 2
train_cfg:
  model: {type: tests.run.tiny.Smooth}
  optim_sches: {type: noam.Noamlr, conf: {optim_type: Adam, optim_conf: {lr: 1e-2}, warmup_steps: 3}}
data_cfg:
  train: {type: tests.run.tiny.Points, conf: {count: 28, noise: 0.0}}   # windows of 8, 8, 8 and 4 items
  valid: {type: tests.run.tiny.Points, conf: {count: 11, noise: 0.0}}
  batch_size: 2
  valid_batch_size: 3
"""
CLOSE = 1e-5  # float32, sums in another order


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "smooth.yaml"
    path.write_text(YAML)
    return path


def close(one: Path, other: Path, tolerance: float = CLOSE) -> None:
    ours, theirs = last_weights(one), last_weights(other)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=tolerance)
    for mine, its in zip(metrics(one), metrics(other), strict=True):
        assert (mine["real_step"], mine["lr"]) == (its["real_step"], its["lr"])
        assert mine["loss"] == pytest.approx(its["loss"], abs=10 * tolerance), "the mean over the ranks"
        assert mine["grad_norm"] == pytest.approx(its["grad_norm"], abs=10 * tolerance)
    pairs = zip(metrics(one, "validation.jsonl"), metrics(other, "validation.jsonl"), strict=True)
    assert all(mine["loss"] == pytest.approx(its["loss"], abs=tolerance) for mine, its in pairs)


@pytest.fixture
def alone(config: Path, tmp_path: Path) -> Path:
    """The run of a single process."""
    assert call("train", config, "--out", tmp_path / "alone").code == 0
    return tmp_path / "alone"


@pytest.mark.parametrize("how", ["ddp", "deferred", "fsdp", "true"])
def test_R31_two_processes_train_what_one_does(
    how: str, config: Path, alone: Path, tmp_path: Path, two_started: Pool
) -> None:
    said, quiet = start(two_started, "train", config, f"distributed={how}", "--out", tmp_path / "run")
    assert (said.code, quiet.code, quiet.out, said.err, quiet.err) == (0, 0, "", "", "")
    assert "28 items, 2 per batch on each of 2 ranks" in said.out
    assert "accum_grad 2 = 16 windows, 8 samples per window" in said.out
    close(tmp_path / "run", alone)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_R31_two_processes_average_what_one_does_and_any_number_goes_on(
    how: str, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    """`close` compares the validations, which are those of the averaged weights."""
    settings = ["train", config, "average={decay: 0.6}", f"distributed={how}", "--out"]
    assert call(*settings, tmp_path / "alone").code == 0
    half = [*settings, tmp_path / "run", "num_epochs=2"]
    start(two_started, *half)
    assert call(*settings, tmp_path / "run", "--resume").code == 0
    close(tmp_path / "run", tmp_path / "alone")
    one, other = (
        last_state(tmp_path / name)["optim_sches"]["main"]["averages"][0] for name in ("run", "alone")
    )
    assert one["count"] == other["count"] == 16
    for name, value in other["weights"].items():
        torch.testing.assert_close(one["weights"][name], value, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("count", [pytest.param(25, marks=pytest.mark.long), 26, 27])
def test_R31_what_is_left_over_counts_by_its_items(
    count: int, config: Path, tmp_path: Path, two_started: Pool, four_started: Pool
) -> None:
    """Batches of 2, 4 and 8 items end an epoch in different ways; its windows are the same items."""
    odd = ["train", config, f"data_cfg.train.conf={{count: {count}, noise: 0.0}}", "--out"]
    assert call(*odd, tmp_path / "alone").code == 0
    for pool in (two_started, four_started):
        start(pool, *odd, tmp_path / str(pool.world))
        close(tmp_path / str(pool.world), tmp_path / "alone")


def test_R31_with_the_items_behind_each_loss_as_weights(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    odd = ["train_cfg.weight=items", "data_cfg.train.conf={count: 29, noise: 0.0}"]
    assert call("train", config, *odd, "--out", tmp_path / "alone").code == 0
    start(two_started, "train", config, *odd, "--out", tmp_path / "run")
    close(tmp_path / "run", tmp_path / "alone")


def test_R29_deferred_copes_with_parameters_that_are_never_used(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    unused = "train_cfg.model.conf={partly: true}"
    said, _ = start(two_started, "train", config, unused, "distributed=deferred", "--out", tmp_path / "run")
    assert said.code == 0
    assert "gives no gradient to 2 of its parameters: unused.weight, unused.bias" in said.out


# ---- checkpoints ----


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_R34_a_wish_of_one_rank_stops_all_and_any_number_goes_on(
    how: str, number: int, config: Path, alone: Path, tmp_path: Path, two_started: Pool, four_started: Pool
) -> None:
    model = f"train_cfg.model={{type: tests.run.tiny.Interrupted, conf: {{at: 10, signal: {int(number)}}}}}"
    stopped = start(two_started, "train", config, model, f"distributed={how}", "--out", tmp_path / "run")
    assert [said.code for said in stopped] == [130, 130]
    assert "stopped    as asked, after batch 11, safely " in stopped[0].out, "at the end of the window"
    assert f" s after {signal.Signals(number).name}. To go on:" in stopped[0].out
    assert f"  torchrun --nproc-per-node 2 -m optimscheduler train {config}" in stopped[0].out
    state = last_state(tmp_path / "run")
    assert (state["ranks"], len(state["random"])) == (2, 2)
    again = ["train", config, "train_cfg.model={type: tests.run.tiny.Smooth}", "--resume"]
    again += ["--on-mismatch", "config", "--out"]
    for name, pool in {"one": None, "four": four_started, "two": two_started}.items():
        folder = tmp_path / name
        shutil.copytree(tmp_path / "run", folder)
        said = call(*again, folder) if pool is None else start(pool, *again, folder)[0]
        assert said.code == 0, said
        assert f"resuming   from {folder}/checkpoints/batch-00000011, epoch 2, batch 11" in said.out
        close(folder, alone)


@pytest.mark.parametrize("how", ["ddp", "deferred", "fsdp"])
def test_R34_two_ranks_stopped_and_resumed_are_as_if_never_stopped(
    how: str, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    """A model with dropout and batch statistics, and noisy data: everything random is put back."""
    conf = "train_cfg.model={type: tests.run.tiny.Tiny}", "data_cfg.train.conf={count: 28}"
    settings = ["train", config, *conf, f"distributed={how}"]
    assert start(two_started, *settings, "--out", tmp_path / "whole")[0].code == 0
    for epochs in (1, 3, 4):
        more = ["--out", tmp_path / "parts", "--resume"]
        assert start(two_started, *settings, f"num_epochs={epochs}", *more)[0].code == 0
    ours, theirs = last_weights(tmp_path / "parts"), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("metrics.jsonl", "validation.jsonl"):
        pairs = zip(metrics(tmp_path / "parts", name), metrics(tmp_path / "whole", name), strict=True)
        assert all(without_seconds([mine]) == without_seconds([its]) for mine, its in pairs)


def test_what_is_saved_are_the_buffers_of_rank_0(config: Path, tmp_path: Path, two_started: Pool) -> None:
    model = "train_cfg.model={type: tests.run.tiny.RankInBuffer}"
    assert start(two_started, "train", config, model, "--out", tmp_path / "run")[0].code == 0
    saved = last_weights(tmp_path / "run")
    assert [float(saved[f"ranks.{i}.rank"]) for i in range(8)] == [0.0] * 8


def test_R34_a_sharded_checkpoint_is_read_by_one_and_back(
    config: Path, alone: Path, tmp_path: Path, two_started: Pool, four_started: Pool
) -> None:
    run = tmp_path / "run"
    assert start(two_started, "train", config, "num_epochs=1", "distributed=fsdp", "--out", run)[0].code == 0
    newest = Checkpoints(run / "checkpoints", Retention(newest=1)).all()[-1]
    assert len(list(newest.glob("shard-*.safetensors"))) == 2, "each rank writes its own"
    assert call("train", config, "num_epochs=2", "--out", run, "--resume").code == 0
    more = ["num_epochs=3", "distributed=fsdp", "--out", run, "--resume"]
    assert start(four_started, "train", config, *more)[0].code == 0
    assert start(two_started, "train", config, "num_epochs=4", "--out", run, "--resume")[0].code == 0
    close(run, alone)


def test_R05_another_number_of_ranks_is_no_other_training_unless_told(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    fixed = ["train", config, "samples_per_update=", "accum_grad=2", "--out", tmp_path / "run"]
    assert start(two_started, *fixed, "num_epochs=1")[0].code == 0
    said = call(*fixed, "--resume")
    assert said.code == 2
    assert (
        "the updates of main were made of 8 samples (batch_size 2 x accum_grad 2 x ranks 2), and 1 ranks now "
        "make 4. Write samples_per_update: 8 in place of accum_grad" in said.err
    )
    assert call(*fixed, "--resume", "--on-mismatch", "config").code == 0


def test_R34_open_windows_wait_for_their_end_before_they_are_saved(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    conf = "{optim_type: SGD, optim_conf: {lr: 0.01}, updated_modules: layers.%d, accum_grad: %d}"
    members = ", ".join(
        f"{name}: {{conf: {conf % n}}}" for name, n in (("first", (0, 2)), ("second", (1, 3)))
    )
    settings = [f"train_cfg.optim_sches={{{members}}}", "samples_per_update=", "partial_window=carry"]
    settings += ["checkpoint_every=1", "keep=99"]
    said = start(two_started, "train", config, *settings, "--out", tmp_path / "run")[0]
    assert said.code == 0, said
    saved = [path.name for path in Checkpoints(tmp_path / "run" / "checkpoints", Retention(newest=1)).all()]
    together = [f"batch-{n:08}" for n in (6, 12, 18, 24)]  # where windows of 2 and of 3 end
    assert saved == [*together, "batch-00000028-2"], "and the end of the run, after its validation"


def test_R34_a_member_with_a_window_of_its_own_keeps_its_samples_or_says_so(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    conf = "{optim_type: SGD, optim_conf: {lr: 0.01}, updated_modules: layers.%d%s}"
    members = f"{{first: {{conf: {conf % (0, '')}}}, second: {{conf: {conf % (1, ', accum_grad: 4')}}}}}"
    settings = ["train", config, f"train_cfg.optim_sches={members}", "--out", tmp_path / "run"]
    assert start(two_started, *settings, "num_epochs=1")[0].code == 0
    said = call(*settings, "--resume")
    assert said.code == 2
    assert "the updates of second were made of 16 samples (batch_size 2 x accum_grad 4 x ranks 2)" in said.err


# ---- a model that shows what it has learned ----


def test_a_sharded_model_may_call_itself_to_show_a_sample(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    model = "train_cfg.model={type: tests.run.tiny.Speaks}"
    said, quiet = start(two_started, "train", config, model, "distributed=fsdp", "--out", tmp_path / "run")
    assert (said.code, quiet.code, quiet.out) == (0, 0, "")
    assert said.out.count("the model writes:") == 4
    alone = call("train", config, model, "--out", tmp_path / "alone").out
    written = [[line for line in out.splitlines() if line.startswith("  | ")] for out in (said.out, alone)]
    assert written[0] == written[1] != []


# ---- mistakes ----


def test_a_mistake_is_said_once(config: Path, tmp_path: Path, two_started: Pool) -> None:
    first, second = start(two_started, "train", config, "grad_clip=-1", "--out", tmp_path / "run")
    assert (first.code, second.code) == (2, 2)
    assert "grad_clip must be a finite number > 0" in first.err
    assert (second.out, second.err) == ("", "")


def test_R32_ranks_that_see_other_data_are_told(config: Path, tmp_path: Path, two_started: Pool) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Fewer}"
    first, second = start(two_started, "train", config, data, "--out", tmp_path / "run")
    assert (first.code, second.code) == (2, 2)
    assert "rank 1 has another number of training items than rank 0: 17, not 18" in first.err


def test_R32_ranks_that_see_other_held_out_data_are_told(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    data = "data_cfg.valid={type: tests.run.tiny.Fewer}"
    first, _ = start(two_started, "train", config, data, "--out", tmp_path / "run")
    assert "rank 1 has another number of held-out items than rank 0: 17, not 18" in first.err


def test_R32_ranks_that_see_another_run_folder_are_told(
    config: Path, tmp_path: Path, two_started: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert start(two_started, "train", config, "num_epochs=1", "--out", run)[0].code == 0
    first, _ = two_started.run(elsewhere, free_port(), str(config), str(run))
    assert first.code == 2
    assert (
        "rank 1 has another list of checkpoints in the run folder than rank 0: [], not ['batch-" in first.err
    )
    assert not [name for name in checkpoints(run) if "damaged" in name]


def elsewhere(port: int, config: str, run: str) -> Said:
    """The second rank has a folder of its own."""
    run += "/nowhere" if os.environ["RANK"] == "1" else ""
    return command(port, ["train", config, "--out", run, "--resume"])


def test_R32_what_one_rank_cannot_prepare_stops_all(config: Path, tmp_path: Path, two_started: Pool) -> None:
    data = "data_cfg.train={type: tests.run.tiny.MissingOnOne}"
    first, second = start(two_started, "train", config, data, "--out", tmp_path / "run")
    assert (first.code, second.code) == (2, 2)
    assert "error: rank 1: data_cfg.train: MissingOnOne is empty" in first.err


def test_several_processes_for_a_run_of_one(config: Path, tmp_path: Path, two_started: Pool) -> None:
    first, _ = start(two_started, "train", config, "distributed=false", "--out", tmp_path / "run")
    assert first.code == 2
    assert "distributed: it is false, but 2 processes were started; write ddp or fsdp" in first.err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "samples_per_update=9",
            "samples_per_update: 9 is no multiple of the 4 samples of a batch (batch_size 2",
        ),
        ("samples_per_update=2", "(batch_size 2 x 2 ranks); write 4"),
        ("accum_grad=2", "samples_per_update: accum_grad is given too"),
    ],
)
def test_samples_that_do_not_come_out_even(
    override: str, says: str, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    first, _ = start(two_started, "train", config, override, "--out", tmp_path / "run")
    assert first.code == 2
    assert says in first.err


# ---- what goes wrong ----


@pytest.mark.parametrize("how", ["ddp", "deferred", "fsdp"])
def test_R20_ranks_stop_together_and_go_on_without_the_batches(
    how: str, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    run = tmp_path / "run"
    data = "data_cfg.train={type: tests.run.tiny.Poisoned, conf: {count: 28, bad: 7}}"
    arguments = [config, data, "num_epochs=1", f"distributed={how}", "on_nonfinite=raise", "--out", run]
    stopped = start(two_started, "train", *arguments)
    assert [said.code for said in stopped] == [2, 2]
    incident = json.loads((run / "incident-1.json").read_text())
    (refused,) = incident["refused"]
    assert len(refused["ranks"]) == 1, "the rank that had the item"
    place = next(n for n, batch in enumerate(batch_indices(28, 4, 3, 1)) if 7 in batch)
    assert refused["bad_batches"] == [place + 1], "also where rank 0 did not have it"
    assert f"the loss itself was not finite in batches {place + 1}; on rank " in stopped[0].err
    assert (stopped[1].out, stopped[1].err) == ("", ""), "rank 0 alone speaks"
    again = shlex.split(stopped[0].err.partition("without these batches:")[2])
    assert again[:5] == ["torchrun", "--nproc-per-node", "2", "-m", "optimscheduler"]
    resumed = start(two_started, *again[5:])
    assert [said.code for said in resumed] == [0, 0], resumed[0].err
    assert [record["real_step"] for record in metrics(run)] == sorted({1, 2, 3, 4} - {refused["real_step"]})
    from_the_start = [config, data, "num_epochs=1", f"distributed={how}", *again[-2:]]
    assert start(two_started, "train", *from_the_start, "--out", tmp_path / "whole")[0].code == 0
    ours, theirs = last_weights(run), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("rank", [0, 1])
def test_R20_the_batch_is_named_whichever_rank_had_it(
    rank: int, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    bad = batch_indices(28, 4, 3, 1)[3][2 * rank]
    data = f"data_cfg.train={{type: tests.run.tiny.Poisoned, conf: {{count: 28, bad: {bad}}}}}"
    said, _ = start(two_started, "train", config, data, "on_nonfinite=raise", "--out", tmp_path / "run")
    (refused,) = json.loads((tmp_path / "run" / "incident-1.json").read_text())["refused"]
    assert (refused["batches"], refused["bad_batches"], refused["ranks"]) == ([3, 4], [4], [rank])
    assert refused["text"] in said.err


@pytest.mark.parametrize("how", ["ddp", "deferred", "fsdp"])
def test_batches_left_out_from_the_middle_are_left_out_from_the_start(
    how: str, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    conf = "train_cfg.model={type: tests.run.tiny.Tiny}", "data_cfg.train.conf={count: 28}"
    settings, skip = ["train", config, *conf, f"distributed={how}"], ["--skip-batches", "9-10,12,15"]
    assert start(two_started, *settings, *skip, "--out", tmp_path / "whole")[0].code == 0
    run = ["--out", tmp_path / "run"]
    assert start(two_started, *settings, "num_epochs=1", *run)[0].code == 0
    assert start(two_started, *settings, *run, "--resume", *skip)[0].code == 0
    ours, theirs = last_weights(tmp_path / "run"), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    lines = [without_seconds(metrics(tmp_path / name)) for name in ("run", "whole")]
    assert lines[0] == lines[1]


def test_batches_are_left_out_though_ranks_cannot_save_the_window_that_is_open(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    out = ["--out", tmp_path / "run"]
    assert call("train", config, *out, "--stop-after", 2).code == 130
    said, _ = start(two_started, "train", config, *out, "--resume", "--skip-batches", "9")
    assert said.code == 0, said.err
    assert last_state(tmp_path / "run")["progress"]["skip"] == "9"


@pytest.mark.parametrize("how", ["ddp", "deferred"])
@pytest.mark.parametrize("rank", [0, 1])
def test_R34_buffers_that_one_rank_has_spoilt_are_put_back_and_resumed(
    how: str, rank: int, config: Path, tmp_path: Path, two_started: Pool
) -> None:
    bad = batch_indices(28, 4, 3, 1)[6][2 * rank]  # the last batch of an epoch, and of its window
    settings = ["train", config, "train_cfg.model={type: tests.run.tiny.Tiny}", f"distributed={how}"]
    settings += [f"data_cfg.train={{type: tests.run.tiny.Poisoned, conf: {{count: 28, bad: {bad}}}}}"]
    assert start(two_started, *settings, "--out", tmp_path / "whole")[0].code == 0
    for epochs in (1, 4):
        more = [f"num_epochs={epochs}", "--out", tmp_path / "run", "--resume"]
        assert start(two_started, *settings, *more)[0].code == 0
    ours, theirs = last_weights(tmp_path / "run"), last_weights(tmp_path / "whole")
    assert all(value.isfinite().all() for value in theirs.values())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    validated = [metrics(tmp_path / name, "validation.jsonl") for name in ("run", "whole")]
    assert validated[0] == validated[1]
    assert all(line["loss"] is not None for line in validated[0])
    carry = [*settings, "partial_window=carry", "num_epochs=2", "--out", tmp_path / "carry"]
    assert start(two_started, *carry)[0].code == 0, "its window is open while the first epoch is validated"
    validated = [metrics(tmp_path / "carry", "validation.jsonl")]
    assert [line["loss"] is not None for line in validated[0]] == [True, True]


def test_R29_after_a_refused_window_all_ranks_have_the_buffers_of_rank_0(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    """A checkpoint shares them too; so where they are shared anyway, it makes no difference."""
    bad = batch_indices(28, 4, 3, 1)[1][0]  # on rank 0, in the second batch, which ends a window
    settings = ["train", config, "train_cfg.model={type: tests.run.tiny.Leans}", "distributed=deferred"]
    settings += [f"data_cfg.train={{type: tests.run.tiny.Poisoned, conf: {{count: 28, bad: {bad}}}}}"]
    for every in (1, 99):
        more = ["num_epochs=1", f"checkpoint_every={every}", "--out", tmp_path / str(every)]
        assert start(two_started, *settings, *more)[0].code == 0
    lines = [without_seconds(metrics(tmp_path / name)) for name in ("1", "99")]
    assert lines[0][1:] == lines[1][1:]


def test_R34_one_damaged_share_sets_the_checkpoint_aside_for_all(
    config: Path, tmp_path: Path, two_started: Pool
) -> None:
    run = tmp_path / "run"
    arguments = ["train", config, "distributed=fsdp", "--out", run]
    assert start(two_started, *arguments, "num_epochs=2")[0].code == 0
    older, newest = checkpoints(run)
    share = sorted((run / "checkpoints" / newest).glob("shard-00002-*"))[0]
    share.write_bytes(bytes(share.stat().st_size))
    first, second = start(two_started, *arguments, "num_epochs=3", "--resume")
    assert [first.code, second.code] == [0, 0], first.err
    assert f"{newest} cannot be used: {share.name} is not what was written" in first.out
    assert f"resuming   from {run / 'checkpoints' / older}," in first.out
    assert start(two_started, *arguments[:3], "num_epochs=3", "--out", tmp_path / "whole")[0].code == 0
    ours, theirs = last_weights(run), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
