"""The run folder: which may be used, and what to type if not."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.commands.run_folder import check_folder, check_same_configuration, make_folder
from tests.run.command import config_of


def check(folder: Path, *, resume: bool) -> None:
    check_folder(folder, Checkpoints(folder / "checkpoints"), resume=resume)


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_is_not_there_or_empty_is_a_new_run(tmp_path: Path, resume: bool) -> None:
    check(tmp_path / "new", resume=resume)
    check(tmp_path, resume=resume)
    assert Checkpoints(tmp_path).newest() is None


def test_what_a_run_leaves_that_failed_in_its_first_window_is_no_run(tmp_path: Path) -> None:
    make_folder(tmp_path, config_of().plain())
    (tmp_path / "metrics.jsonl").write_text("")
    check(tmp_path, resume=False)


@pytest.mark.parametrize("name", ["metrics.jsonl", "thesis.tex", "checkpoints/batch-00000002", "photos/cat"])
def test_a_folder_with_something_in_it_is_refused_with_the_two_things_to_type(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("something")
    with pytest.raises(ConfigError) as error:
        check(tmp_path, resume=False)
    assert "  --resume " in str(error.value)
    assert "  --out ANOTHER_DIR " in str(error.value)


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        check(tmp_path, resume=False)


def test_equal_configurations_are_equal_whatever_may_change_freely() -> None:
    saved, now = config_of().plain(), config_of("num_epochs=9", "data_cfg.num_workers=3").plain()
    assert check_same_configuration(saved, now, decided=False) == []


def test_differences_have_their_dotted_place_whoever_decides() -> None:
    saved, now = config_of().plain(), config_of("train_cfg.optim_sches.conf.optim_conf.lr=1").plain()
    lines = ["train_cfg.optim_sches.conf.optim_conf.lr: 0.01 in the checkpoint, 1 in the configuration"]
    assert check_same_configuration(saved, now, decided=True) == lines
    with pytest.raises(CheckpointError, match="another configuration:\n  " + lines[0]):
        check_same_configuration(saved, now, decided=False)
