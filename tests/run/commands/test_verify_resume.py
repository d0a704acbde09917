"""`verify-resume`: it finds nothing in a sound training, and the cause in one that is not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from optimscheduler.errors import ConfigError
from optimscheduler.run.commands.stop_points import StopPoints, choose_stop_points
from optimscheduler.run.commands.verify_resume import differences_of_states
from optimscheduler.run.plan.plan import make_plan
from tests.run.command import call, config_of, write

DIES = """\
import os, sys
from tests.run.tiny import Points

def here(when, rank):
    said = " ".join(sys.argv)
    signs = {"whole": "whole", "until": "parts", "after": "--resume"}
    which = [name for name, sign in signs.items() if sign in said]
    return which[-1:] == [when] and os.environ.get("RANK", "0") == str(rank)

class Dies(Points):
    def __init__(self, when, after=8, rank=0):
        super().__init__()
        self.when, self.after, self.rank, self.given = when, after, rank, 0
        if not after and here(when, rank):
            raise ValueError("there is no such file")

    def __getitem__(self, index):
        self.given += 1
        if here(self.when, self.rank) and self.given > self.after:
            raise RuntimeError("an item is broken")
        return super().__getitem__(index)
"""


@pytest.fixture(autouse=True)
def _found_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture(autouse=True)
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders of trainings are made, and maybe left."""
    (tmp_path / "left").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "left"))
    return tmp_path / "left"


def dying(folder: Path, **conf: object) -> tuple[Path, str]:
    """A configuration, and a change of it that takes a data set that dies."""
    (folder / "dies_beside.py").write_text(DIES)
    told = ", ".join(f"{key}: {value}" for key, value in conf.items())
    return write(folder), f"data_cfg.train={{type: dies_beside.Dies, conf: {{{told}}}}}"


@pytest.mark.slow
def test_a_sound_training_is_identical(tmp_path: Path, left: Path) -> None:
    said = call("verify-resume", write(tmp_path), "--batches", 9, "--at", 3)  # in the middle of a window
    assert said.code == 0, said.err
    assert "training   9 batches, stopped after 3\n" in said.out
    # 6 parameters, 3 buffers, 3 tensors of Adam for each parameter, a generator
    assert "identical  28 tensors of weights and state, the random generators, and 5 lines" in said.out
    assert list(left.glob("verify-*")) == []


@pytest.mark.slow
def test_a_data_set_that_remembers_is_found(tmp_path: Path) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Remembers}"
    said = call("verify-resume", write(tmp_path), data, "--batches", 99, "--at", 8)
    assert said.code == 1
    assert "training   15 batches, stopped after 8" in said.out, "there are no more"
    assert "different  metrics.jsonl, batch 9: loss " in said.out
    assert "places of the last checkpoint, the first: model.first.weight: " in said.out
    assert "a data set that remembers what it gave" in said.out
    folder = Path(said.out.partition("kept       ")[2].split("/:")[0])
    assert {path.name for path in folder.iterdir()} == {"whole", "parts"}


@pytest.mark.slow
def test_a_training_that_is_never_twice_the_same_is_told_apart(tmp_path: Path) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Unsteady}"
    said = call("verify-resume", write(tmp_path), data, "--batches", 6, "--at", 4)
    assert said.code == 1
    assert "differ before the stop after batch 4 already: the training is not deterministic" in said.out


def test_mistakes_are_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path)
    assert (
        "--at must be a batch from 1 to 8, before the last, got 9"
        in call("verify-resume", config, "--batches", 9, "--at", 9).err
    )
    assert "seeed: unknown key" in call("verify-resume", config, "seeed=1").err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "leave out torchrun, and say --ranks" in call("verify-resume", config).err


# ---- trainings that fail ----


def test_what_a_training_dies_of_is_told(tmp_path: Path, left: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.ReturnsTensor}"
    said = call("verify-resume", write(tmp_path), model, "--batches", 4)
    assert said.code == 2
    assert "the training without a stop fails (exit code 2): " in said.err
    assert "ReturnsTensor returned a Tensor" in said.err


WHICH = {"whole": "without a stop", "until": "until the stop after batch 6", "after": "that goes on after"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "when", ["whole", *(pytest.param(when, marks=pytest.mark.long) for when in ("until", "after"))]
)
def test_one_that_dies_after_its_first_checkpoint_is_no_result(tmp_path: Path, left: Path, when: str) -> None:
    config, data = dying(tmp_path, when=when)
    said = call("verify-resume", config, data, "checkpoint_every=1", "--batches", 12, "--at", 6)
    assert said.code == 2
    assert said.err.startswith(f"error: the training {WHICH[when]}")
    assert "fails (exit code 1): ...\n" in said.err
    assert said.err.endswith("RuntimeError: an item is broken\n")
    assert "identical" not in said.out
    assert "different" not in said.out
    (folder,) = left.glob("verify-*")
    assert any((folder / ("whole" if when == "whole" else "parts") / "checkpoints").iterdir())
    assert f"kept       {folder}/: whole/{'' if when == 'whole' else ' and parts/'}\n" in said.out


@pytest.mark.slow
def test_nothing_is_kept_where_nothing_is_made(tmp_path: Path, left: Path) -> None:
    config, data = dying(tmp_path, when="whole", after=0)
    said = call("verify-resume", config, data, "--batches", 4)
    assert said.code == 2
    assert "there is no such file" in said.err
    assert "kept" not in said.out
    assert list(left.glob("verify-*")) == []


@pytest.mark.slow
def test_one_that_stops_elsewhere_is_no_result(tmp_path: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.SendsItself, conf: {at: 3}}"
    said = call("verify-resume", write(tmp_path), model, "--batches", 9, "--at", 8)
    assert said.code == 2
    assert said.err.startswith(
        "error: the training without a stop was to end with batch 9, and its last checkpoint is of batch 4: "
    )
    assert "stopped    as asked, after batch 4" in said.err


# ---- several ranks ----


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
def test_a_sound_training_of_two_ranks_is_identical(tmp_path: Path) -> None:
    said = call("verify-resume", write(tmp_path), "--ranks", 2, "--batches", 4, "--at", 1)
    assert said.code == 0, said.err + said.out
    assert "note       --batches 4 is 5: several ranks stop at the end of a window\n" in said.out
    assert "note       --at 1 is 2: several ranks" in said.out
    assert "training   5 batches, stopped after 2\n" in said.out
    assert (
        "and 3 lines of metrics are the same to the bit" in said.out
    )  # 3 batches an epoch, windows of 2 and 1


@pytest.mark.long
@pytest.mark.xdist_group("ranks")
def test_a_data_set_that_remembers_is_found_by_two_ranks(tmp_path: Path) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Remembers}"
    said = call("verify-resume", write(tmp_path), data, "--ranks", 2, "--batches", 5, "--at", 2)
    assert said.code == 1, said.err
    assert "different  metrics.jsonl, batch 3: loss " in said.out
    assert "a data set that remembers what it gave" in said.out


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
def test_one_of_two_ranks_that_dies_is_told(tmp_path: Path) -> None:
    config, data = dying(tmp_path, when="whole", rank=1)
    said = call("verify-resume", config, data, "checkpoint_every=1", "--ranks", 2, "--batches", 5, "--at", 2)
    assert said.code == 2
    assert said.err.startswith("error: the training without a stop fails (exit code 1): ")
    assert "RuntimeError: an item is broken" in said.err
    assert said.err.splitlines()[-1].startswith("E"), "torchrun says which process, and not its own traceback"
    assert "failed (exitcode: 1) local_rank: 1" in said.err


# 18 items in batches of 4: with two ranks 3 batches per epoch, 9 in all
STOPS = [  # settings, ranks, batches, at -> batches, at
    ((), 1, 9, 3, 9, 3),  # in mid-window
    ((), 1, 99, 14, 15, 14),
    ((), 2, 9, 4, 9, 5),  # windows end with 2, 3, 5, 6, 8, 9
    ((), 2, 4, 1, 5, 2),
    (("accum_grad=4",), 2, 50, 4, 9, 6),  # with 3, 6, 9
    (("accum_grad=2", "partial_window=carry"), 2, 5, 3, 6, 4),  # with 2, 4, 6, 8, 9
    (("accum_grad=2", "partial_window=drop"), 2, 3, 1, 4, 2),  # with 2, 4, 6 of 6
    (("accum_grad=2", "num_steps=3"), 2, 50, 3, 5, 3),  # with 2, 3, 5 of 5
]


def stops_of(settings: tuple[str, ...], ranks: int, batches: int, at: int | None) -> StopPoints:
    config = config_of(*settings)
    return choose_stop_points(make_plan(config, -(-18 // (4 * ranks)), ranks=ranks), ranks, batches, at)


@pytest.mark.parametrize(("settings", "ranks", "batches", "at", "all_of_them", "stop"), STOPS)
def test_several_ranks_stop_at_the_end_of_a_window(
    settings: tuple[str, ...], ranks: int, batches: int, at: int, all_of_them: int, stop: int
) -> None:
    stops = stops_of(settings, ranks, batches, at)
    assert (stops.batches, stops.at) == (all_of_them, stop)


@pytest.mark.parametrize(("ranks", "allowed"), [(1, {1, 2, 3, 4}), (2, {2, 3})])
def test_a_stop_at_random_is_before_the_end(ranks: int, allowed: set[int]) -> None:
    assert {stops_of((), ranks, 5, None).at for _ in range(200)} == allowed


WRONG = [
    (("num_epochs=1", "accum_grad=1", "num_steps=1"), 1, 50, None, "fewer than 2 batches: 1. Give it more"),
    ((), 1, 9, 9, "--at must be a batch from 1 to 8, before the last, got 9"),
    (("accum_grad=4",), 2, 6, 5, "ends with batch 6. Type --at 3 or --batches 9"),
    (("accum_grad=4",), 2, 9, 8, "ends with batch 9. Type --at 6$"),
    (("accum_grad=4",), 2, 2, 1, "the first one ends with batch 3. Type --batches 6"),
    (("num_epochs=1", "accum_grad=4"), 2, 50, None, "with batch 3. There is no other: give the run more"),
]


@pytest.mark.parametrize(("settings", "ranks", "batches", "at", "message"), WRONG)
def test_where_nothing_can_be_stopped_the_message_says_what_to_type(
    settings: tuple[str, ...], ranks: int, batches: int, at: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        stops_of(settings, ranks, batches, at)


def test_a_run_of_a_single_batch_is_no_traceback(tmp_path: Path) -> None:
    said = call("verify-resume", write(tmp_path), "num_epochs=1", "data_cfg.train.conf.count=3")
    assert said.code == 2
    assert "the run has fewer than 2 batches: 1" in said.err


# ---- what differs ----


def test_where_states_differ() -> None:
    one = {"a": torch.ones(2, 2), "b": [1, {"c": float("nan")}], "d": torch.tensor([1, 2]), "e": 1}
    assert list(differences_of_states(one, one, "x")) == []
    other = {"a": torch.ones(2), "b": [1, {"c": 2.0}], "d": torch.tensor([1, 5]), "f": 1}
    assert [str(found) for found in differences_of_states(one, other, "x")] == [
        "x.a: torch.float32 (2, 2) and torch.float32 (2,)",
        "x.b.1.c: nan and 2.0",
        "x.d: 1 of 2 elements, by at most 3",
        "x.e: it is in one of them alone",
        "x.f: it is in one of them alone",
    ]
