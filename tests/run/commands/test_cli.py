"""The command line itself. What the commands answer is in the files of their parts."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import optimscheduler
from optimscheduler.run.commands import speak
from tests.run.command import YAML, call, write


def test_the_version_is_said() -> None:
    said = call("--version")
    assert said.code == 0
    assert said.out == f"optimscheduler {optimscheduler.__version__}\n"


def test_help_names_the_commands() -> None:
    out = call("--help").out
    assert all(command in out for command in ("train", "explain", "plot"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "No such command"),
        (["train"], "Missing argument"),
        (["train", "a.yaml", "--resmue"], "No such option"),
        (["train", "a.yaml", "--on-mismatch", "mine"], "'mine' is not one of"),
    ],
)
def test_a_command_line_that_is_none_is_exit_code_2(arguments: list[str], says: str) -> None:
    said = call(*arguments)
    assert said.code == 2
    assert says in said.err


@pytest.mark.parametrize(
    ("path", "name"),
    [("char_lm/train.yaml", "char_lm"), ("char_lm/config.yaml", "char_lm"), ("char_lm/large.yaml", "large")],
)
def test_a_run_is_named_after_its_configuration(
    path: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "char_lm").mkdir()
    (tmp_path / path).write_text(YAML)
    monkeypatch.chdir(tmp_path / "char_lm")
    said = call("train", os.path.basename(path), "num_epochs=1")
    assert said.code == 0
    assert (tmp_path / "char_lm" / "runs" / name / "config.yaml").exists()


def test_classes_beside_the_configuration_are_found(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("from tests.run.tiny import Tiny\nclass Mine(Tiny): ...\n")
    said = call("explain", write(tmp_path), "train_cfg.model.type=beside_it.Mine")
    assert said.code == 0
    assert "model      beside_it.Mine()" in said.out


def test_overrides_and_options_may_come_in_any_order(tmp_path: Path) -> None:
    config = write(tmp_path)
    said = call("train", "seed=9", "--out", tmp_path / "a", config)
    assert said.code == 2  # the configuration comes first
    said = call("train", config, "num_epochs=1", "--out", tmp_path / "a", "seed=9")
    assert said.code == 0
    assert "seed 9" in said.out


def test_the_packages_log_is_left_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("optimscheduler")
    before = (list(logger.handlers), logger.level)
    call("explain", write(tmp_path))
    call("explain", tmp_path / "nowhere")
    assert (logger.handlers, logger.level) == before


def test_ctrl_c_before_anything_began_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optimscheduler.run.commands.explain.open_data", pressed)
    said = call("explain", write(tmp_path))
    assert said.code == 130
    assert said.err.startswith("stopped at once, by Ctrl-C")


def test_a_terminal_is_as_wide_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[object] = []
    screen = speak.Screen

    def made(**settings: int) -> object:
        widths.append(settings.get("width"))
        return screen(**settings)

    monkeypatch.setattr(speak, "Screen", made)
    monkeypatch.setattr(speak, "_is_terminal", lambda: True)
    call("explain", write(tmp_path))
    monkeypatch.setattr(speak, "_is_terminal", lambda: False)
    call("explain", write(tmp_path))
    assert widths == [None, 160]


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_what_needs_no_torch_does_not_wait_for_it(argument: str) -> None:
    program = (
        "import sys; from optimscheduler.__main__ import main\n"
        f"sys.argv[1:] = [{argument!r}]\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'yaml', 'pydantic'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
