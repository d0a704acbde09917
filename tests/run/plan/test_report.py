"""`optimscheduler explain`: the plan as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimscheduler.run.plan.plan import make_plan
from optimscheduler.run.plan.report import rhythm, text_curve
from tests.layouts import layout
from tests.run.command import YAML, call, config_of, write


def test_the_whole_answer(tmp_path: Path) -> None:
    said = call("explain", write(tmp_path))
    assert said.code == 0
    assert said.err == ""
    # The curve has 6 rows of 8 eighths, 48 for 0.01: 16 32 48 on the way up, then 48 sqrt(3 / s),
    # which is 42 37 34 31 29 28.
    assert [line.rstrip() for line in said.out.splitlines()] == [
        "model      tests.run.tiny.Tiny()",
        "data       18 items, 4 per batch, 6 held out",
        "training   3 epochs, clip 1, seed 3",
        "precision  as the model is, no autocast, on cpu, 1 thread",
        "main       Noamlr(optimizer=Adam, optim_loss=None, updated_modules=None, d_model=None, "
        "warmup_steps=3)",
        "           layout: 6 tensors, each on its own"
        if layout() == "loose"
        else "           layout: 6 of 6 tensors are small and will lie side by side",
        "",
        "owner  group  tensors  parameters  base lr  weight decay",
        "main   all          6          49     0.01             0",
        "",
        "plan       3 epochs x 5 batches / accum_grad 2 = 9 windows, 8 samples per window",
        "main       9 updates, lr 0.00333 at 1, peak 0.01 at 3, 0.00577 at 9",
        "             █▂      0.01",
        "             ██▅▂",
        "            █████▇▅▄",
        "            ████████",
        "           █████████",
        "           █████████",
        "           1       9",
        "note       the last window of each epoch has 1 of 2 batches",
    ]


def test_explaining_trains_nothing_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write(tmp_path)
    assert call("explain", config).code == 0
    assert list(tmp_path.iterdir()) == [config]


def test_settings_are_told_as_they_are(tmp_path: Path) -> None:
    out = call(
        "explain",
        write(tmp_path),
        "grad_clip=null",
        "num_epochs=1",
        "data_cfg.valid=null",
        "partial_window=carry",
        "use_amp=bf16",
        "train_cfg.model.conf={width: 3}",
        "train_cfg.optim_sches.conf.updated_modules='first'",
    ).out
    assert "model      tests.run.tiny.Tiny(width=3)" in out
    assert "data       18 items, 4 per batch, none held out" in out
    assert "training   1 epoch, no clipping, seed 3" in out
    assert "precision  bfloat16 autocast, on cpu" in out
    assert "plan       1 epoch x 5 batches / accum_grad 2 = 3 windows, windows carried over" in out
    assert "nobody: will not train" in out
    assert "3 updates, lr 0.00333 at 1, 0.01 at 3\n" in out  # the peak is the end


def test_float16_asked_for_where_there_is_none_is_said_once(tmp_path: Path) -> None:
    out = call("train", write(tmp_path), "use_amp=true", "num_epochs=1", "--out", tmp_path / "run").out
    assert out.count("note       use_amp=True means float16 on CUDA; on cpu the model runs as it is") == 1


def test_a_run_without_updates_has_no_curve(tmp_path: Path) -> None:
    said = call("explain", write(tmp_path), "train_cfg.optim_sches.conf.step_per_update=99")
    assert said.code == 0
    assert "main makes no update" in said.out


@pytest.mark.parametrize(
    ("clip", "said"), [("{agc: 0.01, norm: 1}", "clip agc 0.01, norm 1"), ("0.5", "clip 0.5")]
)
def test_the_clipping_is_told(tmp_path: Path, clip: str, said: str) -> None:
    assert f"training   3 epochs, {said}, seed 3" in call("explain", write(tmp_path), f"grad_clip={clip}").out


SEVERAL = (
    "train_cfg.optim_sches={clip_together: true, muon: {conf: {optim_type: Muon, optim_conf: {lr: 0.02}, "
    "updated_modules: {name: first, ndim: 2}}}, rest: {conf: {optim_type: AdamW, optim_conf: {lr: 1e-2}, "
    "exclude: {name: first, ndim: 2}}}}"
)


def test_who_is_clipped_together_is_told(tmp_path: Path) -> None:
    out = call("explain", write(tmp_path), SEVERAL).out
    assert "backward   one of 'loss' for muon and rest\nclipping   one norm over muon and rest\n" in out


def test_members_that_are_clipped_together_are_trained_and_resumed(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    assert call("train", config, SEVERAL, "--out", run, "num_epochs=1").code == 0
    assert call("train", config, SEVERAL, "--out", run, "num_epochs=2", "--resume").code == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    norms = {name: [r["grad_norm"] for r in lines if r["member"] == name] for name in ("muon", "rest")}
    assert norms["muon"] == norms["rest"]
    assert len(norms["muon"]) == 6


OWN = "train_cfg.optim_sches={conf: {optim_type: tests.cases_optimizers.Adaptive, optim_conf: {}}}"


def test_a_step_size_of_the_optimizers_own_is_told_and_is_null_in_the_metrics(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    assert "9 updates, at a step size of the optimizer's own\n" in call("explain", config, OWN).out
    assert call("train", config, OWN, "--out", run, "num_epochs=1").code == 0
    assert call("train", config, OWN, "--out", run, "num_epochs=2", "--resume").code == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == [None] * 6
    said = call("plot", config, OWN)
    assert said.code != 0
    assert "there is no learning rate to draw, the optimizer sets its own step size" in said.out + said.err


def test_names_are_no_markup(tmp_path: Path) -> None:
    rule = "train_cfg.optim_sches.conf.param_groups=[{name: ['[bold]', first]}]"
    assert "[bold] first" in call("explain", write(tmp_path), rule).out


@pytest.mark.parametrize(
    ("points", "lines"),
    [
        ([(1, 0.0), (2, 0.5), (3, 1.0)], [" ▄█ 1", "1  3"]),
        ([(4, 2.0)], ["█ 2", "4  4"]),
        ([(1, 0.0), (2, 0.0)], ["   1", "1  2"]),
        # four points in three columns: the higher one of the two that share a column is drawn
        ([(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.125)], ["█▄▂ 1", "1  4"]),
    ],
)
def test_a_curve_of_block_characters(points: list[tuple[int, float]], lines: list[str]) -> None:
    assert text_curve(points, width=3, height=1) == lines


def test_a_curve_of_several_rows_fills_up_from_below() -> None:
    assert text_curve([(1, 0.25), (2, 0.75), (3, 1.0)], width=3, height=2) == [" ▄█ 1", "▄██", "1  3"]


def test_the_peak_of_a_long_curve_is_drawn_and_named() -> None:
    points = [(s, 1.0 if s == 501 else 0.5) for s in range(1, 1001)]
    rows = text_curve(points, width=10, height=2)
    assert rows[0] == "     █     1"
    assert rows[1] == "██████████"


def a_rhythm(**members: tuple[str, int, int]) -> list[str]:
    """Each with its loss, accum_grad and step_per_update."""
    config = ", ".join(
        f"{name}: {{conf: {{optim_type: SGD, optim_conf: {{lr: 1}}, updated_modules: {name}, "
        f"optim_loss: {loss}, accum_grad: {accum_grad}, step_per_update: {every}}}}}"
        for name, (loss, accum_grad, every) in members.items()
    )
    plan = make_plan(config_of(f"train_cfg.optim_sches={{{config}}}"), batches=5)
    return rhythm(plan.members)


def test_who_moves_in_which_batch_and_who_shares_a_backward() -> None:
    assert a_rhythm(first=("loss", 2, 1), norm=("loss", 1, 3), second=("other", 3, 2)) == [
        "rhythm     batches 1 to 6, then the same again",
        "  first                +U+U+U   loss 'loss'",
        "  norm                 ..U..U   loss 'loss'",
        "  second               ...++U   loss 'other'",
        "           U: its weights move, +: its gradient grows, .: idle, no backward",
        "backward   one of 'loss' for first and norm",
    ]


def test_a_long_rhythm_is_cut_off() -> None:
    lines = a_rhythm(first=("a", 7, 1), second=("b", 8, 1))
    assert lines[0] == "rhythm     batches 1 to 48"
    assert [len(line.split()[1]) for line in lines[1:3]] == [48, 48]
    assert len(lines) == 4, "nothing is shared"


def test_several_members_are_explained_in_their_own_windows(tmp_path: Path) -> None:
    conf = "{optim_type: SGD, optim_conf: {lr: 1}, updated_modules: %s, accum_grad: %d}"
    members = f"{{a: {{conf: {conf % ('first', 2)}}}, b: {{conf: {conf % ('second', 5)}}}}}"
    out = call("explain", write(tmp_path), f"train_cfg.optim_sches={members}").out
    assert "3 epochs x 5 batches / accum_grad 2 = 9 windows" in out
    assert "a          9 updates" in out
    assert "b          3 updates" in out
    assert "note       the last window of a of each epoch has 1 of 2 batches" in out
    assert "windows of b" not in out


def test_what_else_moves_is_said(tmp_path: Path) -> None:
    text = YAML.replace(
        """    type: noam.Noamlr
    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2}
      warmup_steps: 3
""",
        """    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2, weight_decay: 0.1}
      schedule: Cosine(steps="rest")
      schedules: {weight_decay: 'Linear(steps="1ep")'}
      param_groups: [{ndim: "<2", schedule: Constant(0.5)}]
""",
    )
    said = call("explain", write(tmp_path, text))
    assert said.code == 0, said.err
    lines = [line.strip() for line in said.out.splitlines()]
    assert "in real steps: Cosine(steps=9)" in lines
    assert "in real steps: weight_decay of group 0: Linear(steps=3)" in lines
    # 9 windows, 3 in an epoch
    assert "weight_decay of 'rest': 0.1 at 1, 0 at 9" in lines
    assert "lr of 'ndim <2': 0.005 at 1, 0.005 at 9" in lines
