"""A whole run: what the user sees and what it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch import Tensor

from optimscheduler.run.commands import train as train_module
from optimscheduler.run.config.schema import read_config
from optimscheduler.run.config.strict_yaml import read_file
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.data.rng import seed_everything
from tests.run import tiny
from tests.run.command import call, config_of, last_weights, metrics, write
from tests.run.tiny import Tiny


def by_hand(partial_window: str, epochs: int = 3) -> tuple[list[float], Mapping[str, Tensor]]:
    """The run of the tests' configuration as a plain PyTorch loop: losses of the windows, and weights.

    Batches and seeds come from the package, everything that it computes with them does not.
    """
    data = open_data(config_of())
    seed_everything(3)
    model = Tiny()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    window: list[Tensor] = []
    for epoch in range(1, epochs + 1):
        batches = [batch for *_, batch in data.training(epoch, torch.device("cpu"), range(5))]
        for place, batch in enumerate(batches[:4] if partial_window == "drop" else batches, 1):
            model.train()
            loss = model(batch)["loss"]
            loss.backward()
            window.append(loss.detach())
            short_end = place == 5 and (partial_window == "apply" or epoch == epochs)
            if len(window) == 2 or short_end:
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.grad /= len(window)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                step = len(losses) + 1
                optimizer.param_groups[0]["lr"] = 1e-2 * 3**0.5 * min(step**-0.5, step * 3**-1.5)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(torch.stack(window).mean().item())
                window = []
    return losses, model.state_dict()


@pytest.mark.parametrize("partial_window", ["apply", "carry", "drop"])
def test_a_run_is_what_a_plain_loop_does(partial_window: str, tmp_path: Path) -> None:
    assert (
        call("train", write(tmp_path), f"partial_window={partial_window}", "--out", tmp_path / "run").code
        == 0
    )
    losses, weights = by_hand(partial_window)
    done = metrics(tmp_path / "run")
    assert [record["real_step"] for record in done] == list(range(1, len(losses) + 1))
    # torch's clipping adds 1e-6 to the norm; float32 sums may come in another order. The gradient of a bias
    # before a norm over the batch is noise around 0, which Adam makes as large as any other.
    assert [record["loss"] for record in done] == pytest.approx(losses, rel=1e-4)
    for name in set(weights) - {"first.bias", "norm.running_mean"}:
        torch.testing.assert_close(last_weights(tmp_path / "run")[name], weights[name], rtol=1e-3, atol=1e-5)


def test_what_is_left_in_the_folder(tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "runs" / "mine"
    said = call("train", config, "num_epochs=2", "--out", out)
    assert said.code == 0
    assert {path.name for path in out.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "validation.jsonl",
        "curves.png",
        "checkpoints",
        "source.txt",
    }
    assert read_config(read_file(out / "config.yaml"), "again") == config_of("num_epochs=2")
    keys = "batch real_step epoch lr loss grad_norm updated skipped backward_seconds update_seconds"
    assert all(list(record) == keys.split() for record in metrics(out))
    assert all(record["updated"] and not record["skipped"] for record in metrics(out))
    assert all(record["backward_seconds"] > 0 < record["update_seconds"] for record in metrics(out))
    assert [record["batch"] for record in metrics(out)] == [2, 4, 5, 7, 9, 10]
    assert [record["epoch"] for record in metrics(out, "validation.jsonl")] == [1, 2]
    assert f"written    {out}/: config.yaml, metrics.jsonl, validation.jsonl, curves.png, checkpoints/" in (
        said.out
    )


def test_what_the_user_sees_in_order(tmp_path: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.Writes}"
    warm_up = "train_cfg.optim_sches.conf.warmup_steps=2"
    said = call("train", write(tmp_path), model, warm_up, "num_epochs=1", "--out", tmp_path / "run")
    assert said.err == ""
    begins = [line.partition(" ")[0] for line in said.out.splitlines()]
    assert begins[:5] == ["model", "data", "training", "precision", "main"]
    assert begins[5:13] == ["", "", "owner", "main", "", "plan", "main", "note"]
    assert begins[13:] == ["window", "window", "epoch", "the", "", "", "written"]
    assert "  | [bold]" in said.out
    assert "  | second line" in said.out


def test_a_model_that_writes_a_sample_changes_no_training(tmp_path: Path) -> None:
    config = write(tmp_path)
    assert call("train", config, "--out", tmp_path / "silent").code == 0
    model = "train_cfg.model={type: tests.run.tiny.Writes}"
    assert call("train", config, model, "--out", tmp_path / "writes").code == 0
    ours, theirs = last_weights(tmp_path / "silent"), last_weights(tmp_path / "writes")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_that_draws_leaves_a_picture_per_epoch_and_changes_no_training(tmp_path: Path) -> None:
    config = write(tmp_path)
    assert call("train", config, "--out", tmp_path / "silent").code == 0
    model = "train_cfg.model={type: tests.run.tiny.Draws}"
    said = call("train", config, model, "tensorboard=true", "--out", tmp_path / "draws")
    assert said.out.count("the model draws: samples/epoch-0003.png in the run folder") == 1
    ours, theirs = last_weights(tmp_path / "silent"), last_weights(tmp_path / "draws")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pictures = sorted((tmp_path / "draws" / "samples").iterdir())
    assert [path.name for path in pictures] == [f"epoch-000{epoch}.png" for epoch in (1, 2, 3)]
    pixels = matplotlib.image.imread(pictures[0])
    assert pixels.shape[:2] == (3 * 160, 5 * 160), "large enough to be looked at"
    drawn = torch.rand(3, 5, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(torch.tensor(pixels[::160, ::160, 0]), 1 - drawn, atol=1 / 128), "1 is ink"


@pytest.mark.parametrize("tensorboard", ["true", "false"])
def test_what_is_no_picture_is_told_and_no_traceback(
    tensorboard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.Draws, "draw_sample", lambda _, *, generator: torch.zeros(1, 3, 5))
    settings = ["train_cfg.model={type: tests.run.tiny.Draws}", f"tensorboard={tensorboard}"]
    said = call("train", write(tmp_path), *settings, "--out", tmp_path / "run")
    assert said.code == 2
    assert "draw_sample: a picture must be (height, width)" in said.err


def test_a_picture_that_finds_no_place_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_text("in the way")
    model = "train_cfg.model={type: tests.run.tiny.Draws}"
    said = call("train", write(tmp_path), model, "num_epochs=1", "--out", tmp_path / "run", "--resume")
    assert said.code == 0
    assert "epoch-0001.png cannot be written" in said.out


def test_two_equal_runs_are_equal_and_another_seed_is_another_run(tmp_path: Path) -> None:
    config = write(tmp_path)
    for name, settings in {"a": [], "b": [], "c": ["seed=4"]}.items():
        assert call("train", config, *settings, "--out", tmp_path / name).code == 0
    losses = {name: [record["loss"] for record in metrics(tmp_path / name)] for name in "abc"}
    assert losses["a"] == losses["b"] != losses["c"]


def test_idle_windows_leave_no_line(tmp_path: Path) -> None:
    said = call(
        "train", write(tmp_path), "train_cfg.optim_sches.conf.step_per_update=2", "--out", tmp_path / "run"
    )
    assert said.code == 0
    assert [record["real_step"] for record in metrics(tmp_path / "run")] == [2, 4, 6, 8]


def test_a_refused_gradient_is_a_line_with_null_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.run.tiny as tiny

    class Overflows(tiny.Tiny):
        calls = 0

        def forward(self, batch: Any) -> Any:
            type(self).calls += self.training
            outputs = super().forward(batch)
            return {**outputs, "loss": outputs["loss"] * (math.inf if self.calls == 3 else 1.0)}

    monkeypatch.setattr(tiny, "Tiny", Overflows)
    said = call("train", write(tmp_path), "num_epochs=1", "--out", tmp_path / "run")
    assert said.code == 0
    first, second, third = metrics(tmp_path / "run")
    assert (second["loss"], second["grad_norm"], second["updated"], second["skipped"]) == (
        None,
        None,
        False,
        True,
    )
    assert first["updated"]
    assert third["updated"]
    assert "warning    real step 2 (batches 3, 4) of loss 'loss' skipped" in said.out
    assert "skips 1" in said.out


def test_too_many_refused_gradients_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.run.tiny as tiny

    class Diverged(tiny.Tiny):
        def forward(self, batch: Any) -> Any:
            return {"loss": super().forward(batch)["loss"] * math.nan}

    monkeypatch.setattr(tiny, "Tiny", Diverged)
    said = call("train", write(tmp_path), "train_cfg.optim_sches.conf.max_skips=2", "--out", tmp_path / "run")
    assert said.code == 2
    assert said.err.startswith("error: 3 gradients in a row were refused (max_skips=2)")
    assert len(metrics(tmp_path / "run")) == 2  # the third was never reported
    assert (tmp_path / "run" / "curves.png").exists()


def test_weighted_windows_follow_the_number_of_items(tmp_path: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.Weighted}"
    settings = [model, "num_epochs=1", "train_cfg.weight=items", "data_cfg.valid=null"]
    assert call("train", write(tmp_path), *settings, "--out", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "validation.jsonl").read_text() == ""
    assert call("train", write(tmp_path), *settings[:2], "--out", tmp_path / "unweighted").code == 0
    assert metrics(tmp_path / "run")[0]["loss"] != metrics(tmp_path / "unweighted")[0]["loss"]


def test_tensorboard_is_an_extra(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    said = call("train", write(tmp_path), "tensorboard=true", "num_epochs=1", "--out", tmp_path / "run")
    assert said.code == 0
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "curves.png").mkdir(parents=True)
    said = call("train", write(tmp_path), "num_epochs=1", "--out", out, "--resume")
    assert said.code == 0
    assert "curves.png cannot be written" in said.out


def test_threads_are_set_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(train_module.torch, "set_num_threads", asked.append)
    for settings in (["threads=1"], ["threads=null"]):
        assert (
            call("train", write(tmp_path), *settings, "num_epochs=1", "--out", tmp_path / settings[0]).code
            == 0
        )
    assert asked == [1]
