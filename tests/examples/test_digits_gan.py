"""The GAN: its data, its two losses, who gets which gradient, and whether it draws digits."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from digits_gan import Digits, DigitsGan
from judge import Verdict, judged, newest

from optimscheduler import ConfigError, build_optim_sches
from optimscheduler.run.config.strict_yaml import read_file
from tests.distributed.launch import start
from tests.distributed.pool import Pool
from tests.run.command import call, last_state, metrics

YAML = Path(__file__).parents[2] / "examples" / "digits_gan" / "train.yaml"


def test_the_images_are_those_of_scikit_learn() -> None:
    data = Digits()
    first = data[0]
    assert len(data) == 1797
    assert (first["image"].shape, int(first["digit"])) == ((64,), 0)
    assert (float(first["image"].min()), float(first["image"].max())) == (-1.0, 0.875)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        Digits()


def test_the_losses_are_the_hinge_losses() -> None:
    torch.manual_seed(0)
    model = DigitsGan(width=16).eval()
    batch = {"image": torch.randn(5, 64), "digit": torch.arange(5)}
    torch.manual_seed(1)
    losses = model(batch)
    torch.manual_seed(1)
    fake = model.generate(batch["digit"], torch.randn(5, 32))
    for_real, for_fake = (model.judge(images, batch["digit"]) for images in (batch["image"], fake))
    hinge = torch.clamp(1 - for_real, min=0).mean() + torch.clamp(1 + for_fake, min=0).mean()
    assert torch.equal(losses["discriminator_loss"], hinge)
    assert torch.equal(losses["generator_loss"], -for_fake.mean())


def test_R09_each_side_moves_as_in_two_loops_by_hand() -> None:
    """Four batches: the discriminator moves in each, the generator in the second and fourth."""

    def batches() -> list[dict[str, torch.Tensor]]:
        torch.manual_seed(5)
        return [{"image": torch.randn(6, 64).double(), "digit": torch.randint(10, (6,))} for _ in range(4)]

    def a_model() -> DigitsGan:
        torch.manual_seed(0)
        return DigitsGan(width=16).double()

    optim_sches = read_file(YAML)["train_cfg"]["optim_sches"]
    del optim_sches["generator_optim"]["conf"]["schedule"]
    ours, theirs = a_model(), a_model()
    optims = build_optim_sches(ours, optim_sches, use_amp=False)
    for batch in batches():
        with optims.forward():
            losses = ours(batch)
        optims.step(losses)
    by_hand = {
        "discriminator": torch.optim.Adam(theirs.discriminator.parameters(), lr=1e-3, betas=(0.0, 0.9)),
        "generator": torch.optim.Adam(theirs.generator.parameters(), lr=5e-4, betas=(0.0, 0.9)),
    }
    for number, batch in enumerate(batches(), start=1):
        losses, gradients = theirs(batch), {}
        for side in ("discriminator", "generator"):
            mine = list(getattr(theirs, side).parameters())
            gradients[side] = torch.autograd.grad(losses[f"{side}_loss"], mine, retain_graph=True)
        for side, optimizer in by_hand.items():
            if side == "generator" and number % 2:
                continue
            for parameter, gradient in zip(getattr(theirs, side).parameters(), gradients[side], strict=True):
                parameter.grad = gradient.clone()
            torch.nn.utils.clip_grad_norm_(getattr(theirs, side).parameters(), 1.0)
            optimizer.step()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(dict(ours.named_parameters())[name], parameter, rtol=0, atol=1e-10)


def test_a_check_before_a_training_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no checkpoint in .*; train first"):
        newest(tmp_path)


@pytest.mark.slow
def test_a_third_of_the_run_draws_digits_already(tmp_path: Path) -> None:
    said = call("train", YAML, "num_epochs=70", "threads=1", "--out", tmp_path / "run")
    assert said.code == 0
    assert "the model draws: samples/epoch-0070.png in the run folder" in said.out
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 70
    verdict = judged(newest(tmp_path / "run"))
    assert verdict.passed, verdict


@pytest.mark.long
def test_the_whole_run_draws_digits_that_are_what_they_were_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", YAML, "threads=1", "--out", tmp_path / "run").code == 0
    for seed in range(3):
        verdict = judged(newest(tmp_path / "run"), seed)
        assert verdict.named == 10
        assert verdict.confidence >= 0.9  # 0.95 with every seed that was tried
        assert verdict.wanted >= 0.85  # 0.91 to 0.98
    assert judge_of(tmp_path / "run", monkeypatch) == 0
    assert "of 200 drawn digits it names 10 of ten" in capsys.readouterr().out


def judge_of(run: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of the script."""
    monkeypatch.setattr(sys, "argv", ["judge.py", str(run)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(YAML.with_name("judge.py")), run_name="__main__")
    return ended.value.code


def test_the_script_ends_with_1_below_the_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["num_epochs=1", "threads=1", "data_cfg.batch_size=600", "train_cfg.model.conf={width: 16}"]
    assert call("train", YAML, *settings, "--out", tmp_path / "run").code == 0
    assert judge_of(tmp_path / "run", monkeypatch) == 1
    assert "of real digits that it has not seen" in capsys.readouterr().out


def test_a_generator_that_has_learned_nothing_does_not_pass() -> None:
    torch.manual_seed(0)
    verdict = judged(DigitsGan())
    assert not verdict.passed
    assert Verdict(accuracy=0.96, named=10, confidence=0.8, wanted=1.0).passed
    assert not Verdict(accuracy=0.95, named=10, confidence=1.0, wanted=1.0).passed
    assert not Verdict(accuracy=1.0, named=9, confidence=1.0, wanted=1.0).passed
    assert not Verdict(accuracy=1.0, named=10, confidence=0.79, wanted=1.0).passed


@pytest.mark.parametrize("digit", range(10))
def test_what_is_drawn_is_a_row_for_each_digit(digit: int) -> None:
    torch.manual_seed(0)
    model, source = DigitsGan(width=16), torch.Generator().manual_seed(7)
    picture = model.draw_sample(generator=source)
    assert picture.shape == (98, 98)
    assert 0 <= float(picture.min()) < float(picture.max()) <= 1
    noise = torch.randn(100, 32, generator=torch.Generator().manual_seed(7))[10 * digit + 3]
    image = model.generate(torch.tensor([digit]), noise[None]).detach().view(8, 8)
    top, left = 10 * digit, 30  # tiles of 8 and margins of 2
    drawn = picture[top : top + 8, left : left + 8]
    torch.testing.assert_close(drawn, (image + 1) / 2, rtol=0, atol=1e-6)  # another batch size, other sums
    assert not picture[:, 8:10].any(), "the margin is paper"


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
def test_B24_two_ranks_with_accumulation_and_a_loss_scale(tmp_path: Path, two_started: Pool) -> None:
    settings = ["use_amp=fp16", "accum_grad=2", "num_epochs=3", "threads=1", "data_cfg.batch_size=32"]
    said, _ = start(two_started, "train", YAML, *settings, "--out", tmp_path / "run")
    assert (said.code, said.err) == (0, "")
    assert "float16 autocast with loss scaling" in said.out
    records = metrics(tmp_path / "run")
    assert {record["member"] for record in records} == {"discriminator_optim", "generator_optim"}
    # 1,797 items / (32 x 2 ranks) = 29 batches, so 15 windows per epoch, the last of one batch
    assert [r["real_step"] for r in records if r["member"] == "generator_optim"] == list(range(2, 46, 2))
    assert sum(r["updated"] for r in records) > 45, "the first scale overflows a few times"
    states = last_state(tmp_path / "run")["optim_sches"]
    assert {state["scaler"]["scale"] for state in states.values()} != {65536.0}
    assert all(torch.isfinite(w).all() for w in last_state(tmp_path / "run")["model"].values())
