"""`metrics.jsonl` and `validation.jsonl`: whole lines, valid JSON, cut back to a checkpoint."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import shutil
from io import FileIO
from pathlib import Path

import pytest
import torch

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.jsonl import METRICS, VALIDATION, JsonLines, read_lines


def test_a_line_is_in_the_file_as_soon_as_it_is_known(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path, {})
    lines.window({"batch": 1, "loss": 0.5})
    assert (tmp_path / METRICS).read_text() == '{"batch": 1, "loss": 0.5}\n'
    lines.validated({"epoch": 1})
    lines.sampled("not kept")
    lines.drawn(1, torch.zeros(2, 2))  # nor this
    assert (tmp_path / VALIDATION).read_text() == '{"epoch": 1}\n'
    assert lines.lengths() == {METRICS: 26, VALIDATION: 13}
    lines.close()


def test_what_json_cannot_hold_is_null(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path, {})
    lines.window({"loss": math.nan, "grad_norm": math.inf, "lr": -math.inf, "batch": 3, "updated": False})
    lines.close()
    text = (tmp_path / METRICS).read_text()
    assert text == '{"loss": null, "grad_norm": null, "lr": null, "batch": 3, "updated": false}\n'


def test_a_resumed_run_cuts_off_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path, {})
    lines.window({"batch": 1})
    known = lines.lengths()
    lines.window({"batch": 2})
    lines.validated({"epoch": 1})
    lines.close()
    again = JsonLines(tmp_path, known)
    again.window({"batch": 3})
    again.close()
    assert read_lines(tmp_path / METRICS) == [{"batch": 1}, {"batch": 3}]
    assert read_lines(tmp_path / VALIDATION) == []


def test_a_new_run_begins_with_empty_files(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text("old\n")
    JsonLines(tmp_path, {}).close()
    assert (tmp_path / METRICS).read_text() == ""


def test_lines_that_are_gone_are_told_and_not_made_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / METRICS).write_text('{"batch": 1}\n')
    with caplog.at_level(logging.WARNING):
        lines = JsonLines(tmp_path, {METRICS: 39, VALIDATION: 0})
    lines.window({"batch": 4})
    lines.close()
    assert "metrics.jsonl has lost 26 of the 39 bytes that the checkpoint knows of" in caplog.text
    assert read_lines(tmp_path / METRICS) == [{"batch": 1}, {"batch": 4}]


def test_reading_leaves_out_a_line_that_was_cut_off_in_writing(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"text": "a\\u2028b"}\n{"batch": 2}\n{"bat')
    assert read_lines(tmp_path / METRICS) == [{"text": "a\u2028b"}, {"batch": 2}]
    assert read_lines(tmp_path / "nowhere") == []


def test_files_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / METRICS).mkdir()
    with pytest.raises(ConfigError, match=r"metrics\.jsonl cannot be written: Is a directory"):
        JsonLines(tmp_path, {})


class Full:
    """A disk on which there is room for five bytes, and later for more."""

    def __init__(self, file: FileIO) -> None:
        self.file, self.room = file, 5

    def write(self, line: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(line[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def test_what_finds_no_room_on_a_full_disk_is_written_when_there_is_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = JsonLines(tmp_path, {})
    file = lines._files[METRICS]
    file._file = disk = Full(file._file)
    lines.window({"batch": 1})
    lines.window({"batch": 2})
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / METRICS} cannot be written: No space left on device. "
        "Its lines are kept, and tried again"
    ]
    assert lines.lengths()[METRICS] == 5
    disk.room = 1000
    lines.window({"batch": 3})
    lines.close()
    assert [record["batch"] for record in read_lines(tmp_path / METRICS)] == [1, 2, 3]


def test_a_file_that_was_removed_is_put_back_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").mkdir()
    lines = JsonLines(tmp_path / "run", {})
    lines.window({"batch": 1})
    shutil.rmtree(tmp_path / "run")
    lines.window({"batch": 2})
    assert lines.lengths()[METRICS] == 26
    lines.window({"batch": 3})
    lines.close()
    assert [record["batch"] for record in read_lines(tmp_path / "run" / METRICS)] == [1, 2, 3]
    assert "was removed while the run goes on; it is written again" in caplog.text


def test_every_line_is_json(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path, {})
    lines.validated({"loss": 1e-300, "näme": 1.5})
    lines.close()
    assert json.loads((tmp_path / VALIDATION).read_bytes()) == {"loss": 1e-300, "näme": 1.5}
