"""Gradients that are not finite: a run that goes on without them, and one that stops and says how to."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from optimscheduler import NonFiniteError
from optimscheduler.reports.forensics import Refusal
from optimscheduler.run.data.batches import batch_indices
from optimscheduler.run.loop.nonfinite import in_full, of_all_ranks, refuse
from tests.cases_models import a_model, batches, mse, optim_of
from tests.run.command import call, checkpoints, last_state, last_weights, metrics, write

POISONED = "data_cfg.train={type: tests.run.tiny.Poisoned, conf: {bad: 7}}"


def bad_batches(epochs: int = 3) -> list[int]:
    """Numbers of the batches that hold item 7, from 1 through the whole run."""
    order = [batch for epoch in range(1, epochs + 1) for batch in batch_indices(18, 4, 3, epoch)]
    return [number for number, batch in enumerate(order, 1) if 7 in batch]


def window_of(batch: int) -> list[int]:
    """Batches of its window: 2 to each, the last of an epoch of 5 on its own."""
    epoch, place = divmod(batch - 1, 5)
    first = epoch * 5 + place // 2 * 2 + 1
    return [first] if place == 4 else [first, first + 1]


def test_skip_is_the_default_and_poisons_nothing(tmp_path: Path) -> None:
    said = call("train", write(tmp_path), POISONED, "--out", tmp_path / "run")
    assert said.code == 0
    assert sum(record["skipped"] for record in metrics(tmp_path / "run")) == 3, "once in each epoch"
    assert "3 of the model's buffers" not in said.out
    assert "2 of the model's buffers were not finite any more, and were put back" in said.out
    assert all(value.isfinite().all() for value in last_weights(tmp_path / "run").values())
    assert all(line["loss"] is not None for line in metrics(tmp_path / "run", "validation.jsonl"))


def test_raise_stops_with_what_is_known_and_the_command_that_goes_on_without(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    arguments = ["train", config, POISONED, "on_nonfinite=raise", "--out", run]
    said = call(*arguments)
    bad = window_of(bad_batches()[0])
    assert said.code == 2
    assert said.err.startswith(f"error: real step {metrics(run)[-1]['real_step']} (batches ")
    assert (
        f"What is known of it is in {run / 'incident-1.json'}. Newest checkpoint, from before: batch-"
        in said.err
    )
    incident = json.loads((run / "incident-1.json").read_text())
    (refused,) = incident["refused"]
    assert (refused["batches"], refused["bad_batches"]) == (bad, [bad_batches()[0]])
    assert (refused["loss"], refused["norm"], refused["ranks"]) == ("loss", None, None)
    assert "first.weight" in refused["parameters"]
    assert incident["last_windows"] == [dict(record) for record in metrics(run)]
    assert incident["checkpoint"] == checkpoints(run)[-1]
    assert last_state(run)["progress"]["batch"] < bad[0]

    for number in (2, 3):  # one in each epoch
        again = shlex.split(said.err.partition("without these batches:")[2])
        assert again[:2] == ["optimscheduler", "train"]
        assert again[-2] == "--skip-batches"
        said = call(*again[1:])
        assert said.code == 2
        assert (run / f"incident-{number}.json").exists()
    again = shlex.split(said.err.partition("without these batches:")[2])
    said = call(*again[1:])
    assert said.code == 0
    skipped = [batch for bad in bad_batches() for batch in window_of(bad)]
    assert last_state(run)["progress"]["skip"].replace("-", ",").split(",")[0] == str(skipped[0])
    done = [record["real_step"] for record in metrics(run)]
    assert len(done) == 6, "three of nine windows are left out"
    assert done == sorted(set(range(1, 10)) - {_real_step(bad) for bad in bad_batches()})

    told = ",".join(map(str, skipped))
    whole = call("train", config, POISONED, "--skip-batches", told, "--out", tmp_path / "whole")
    assert whole.code == 0
    assert f"skipping   batches {last_state(run)['progress']['skip']}" in whole.out
    ours, theirs = last_weights(run), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), "as if they had never been there"


def _real_step(batch: int) -> int:
    epoch, place = divmod(batch - 1, 5)
    return epoch * 3 + place // 2 + 1


def test_many_refusals_in_a_row_leave_a_report_too(tmp_path: Path) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Poisoned, conf: {count: 2, bad: 0}}"
    settings = [data, "train_cfg.optim_sches.conf.max_skips=1", "data_cfg.batch_size=2", "accum_grad=1"]
    said = call("train", write(tmp_path), *settings, "--out", tmp_path / "run")
    assert said.code == 2
    assert said.err.startswith("error: 2 gradients in a row were refused (max_skips=1)")
    assert said.err.rstrip().endswith("--resume --skip-batches 1-2")
    incident = json.loads((tmp_path / "run" / "incident-1.json").read_text())
    assert [refused["batches"] for refused in incident["refused"]] == [[1], [2]]


def test_an_overflow_by_which_a_loss_scaler_finds_its_scale_stops_nothing(tmp_path: Path) -> None:
    settings = ["use_amp=fp16", "on_nonfinite=raise", "train_cfg.model.type=tests.run.tiny.Steep"]
    said = call("train", write(tmp_path), *settings, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert metrics(tmp_path / "run")[0]["skipped"], "the first scale is too large"
    assert metrics(tmp_path / "run")[-1]["updated"]


def test_an_overflow_that_no_scale_explains_stops_the_run() -> None:
    optim = optim_of(a_model(), use_amp="fp16", max_skips=40)
    at_0 = torch.zeros((), requires_grad=True)
    seen: list[float] = []
    with pytest.raises(NonFiniteError) as caught:
        for batch in batches(30):
            with optim.forward():
                loss = mse(optim.model, batch)
            wrong = (
                at_0 * sum(p.sum() for p in optim.model.parameters())
            ).sqrt()  # 0, with a slope of 0 x inf
            report = optim.step({"loss": loss + wrong}).read()
            assert report.loss is not None
            assert math.isfinite(report.loss)
            assert optim.scaler is not None
            seen.append(optim.scaler.get_scale())
            refuse(optim, report)
    assert seen[-2:] == [1.0, 0.5], "from 2^16 on, the 17th in a row"
    assert str(caught.value).startswith("real step 17 (batches 17) of loss 'loss' skipped: gradient norm nan")
    assert str(caught.value).endswith(
        "The loss scale is down to 0.5, so it is not the scale that makes it overflow"
    )


def test_only_what_stopped_the_run_is_named_and_no_overflow_before_it(tmp_path: Path) -> None:
    bad = batch_indices(18, 4, 3, 1)[2][0]
    data = f"data_cfg.train={{type: tests.run.tiny.Poisoned, conf: {{bad: {bad}}}}}"
    settings = [data, "use_amp=fp16", "on_nonfinite=raise", "train_cfg.model.type=tests.run.tiny.Steep"]
    said = call("train", write(tmp_path), *settings, "--out", tmp_path / "run")
    assert said.code == 2
    assert [record["skipped"] for record in metrics(tmp_path / "run")] == [True, True]
    assert said.err.rstrip().endswith("--skip-batches 3-4")
    incident = json.loads((tmp_path / "run" / "incident-1.json").read_text())
    assert [refused["batches"] for refused in incident["refused"]] == [[3, 4]]


def test_two_members_that_stop_it_in_the_same_batch_are_both_named(tmp_path: Path) -> None:
    conf = "optim_type: SGD, optim_conf: {lr: 0.01}"
    members = f"a: {{conf: {{{conf}, updated_modules: [first, norm]}}}}"
    members = f"{{{members}, b: {{conf: {{{conf}, updated_modules: second}}}}}}"
    settings = [POISONED, f"train_cfg.optim_sches={members}", "on_nonfinite=raise"]
    said = call("train", write(tmp_path), *settings, "--out", tmp_path / "run")
    assert said.code == 2
    incident = json.loads((tmp_path / "run" / "incident-1.json").read_text())
    assert [refused["batches"] for refused in incident["refused"]] == [window_of(bad_batches()[0])] * 2


def test_a_run_that_is_started_again_as_it_is_leaves_no_second_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", write(tmp_path), POISONED, "on_nonfinite=raise", "--out", tmp_path / "run"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    first = call(*arguments)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for _ in range(2):
        said = call(*arguments)
        assert said.code == 2
        assert "the same windows were refused before, after the same checkpoint" in said.out
        assert said.err == first.err
    assert [path.name for path in (tmp_path / "run").glob("incident-*")] == ["incident-1.json"]
    (tmp_path / "run" / "incident-1.json").write_text("{")
    assert "incident-2.json" in call(*arguments).err


def test_the_command_goes_on_with_what_was_decided_about_the_configuration(tmp_path: Path) -> None:
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    assert call("train", config, POISONED, "num_epochs=1", "num_steps=1", *out).code == 0
    changed = [POISONED, "train_cfg.optim_sches.conf.optim_conf.lr=1", "on_nonfinite=raise", "num_epochs=1"]
    decided = ["--on-mismatch", "config", "--allow-jump"]
    said = call("train", config, *changed, *out, "--resume", *decided)
    assert said.code == 2
    again = shlex.split(said.err.partition("without these batches:")[2])
    assert again[-5:-2] == decided
    assert call(*again[1:]).code == 0


def test_what_ranks_know_of_a_refusal_is_put_together() -> None:
    one = Refusal(loss="loss", real_step=3, batches=(5, 6), norm=math.nan, ranks=(1,), gradients=2)
    other = replace(one, bad_batches=(6,), parameters=("weight",))
    (both,) = of_all_ranks([[one], [other]])
    assert both == other
    assert in_full(f"so: {one}.", [one], [both]) == (
        "so: real step 3 (batches 5, 6) of loss 'loss' skipped: gradient norm nan; the loss itself was not "
        "finite in batches 6; on rank 1; not finite in weight (1 of 2 gradients)."
    )
