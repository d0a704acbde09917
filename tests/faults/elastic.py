"""Workers of a torchrun job killed one after the other, and the launcher asked to stop."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from optimscheduler.run.checkpoint.manifest import Manifest
from optimscheduler.run.commands.train import INTERRUPTED
from tests.distributed.test_run import YAML
from tests.faults.resumed import Left, left_of
from tests.faults.row import Row
from tests.faults.same import difference
from tests.run.command import checkpoints, last_state

__all__ = ["Stop", "drill", "sigterm", "wrong_restart"]

_ROOT = Path(__file__).parents[2]
_WORKER = "tests.faults.worker"
_STOPPED = re.compile(
    r"^stopped    as asked, after batch (\d+), safely (\d+\.\d+) s after SIGTERM\.", re.MULTILINE
)
_SETTINGS = ("log_every=1", "checkpoint_every=3")


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Kill a worker that many times in a row; then do the same job without."""
    config, chance = _config(folder, epochs=8 + 5 * count), random.Random(seed)
    whole, run = folder / "whole", folder / "run"
    job = _Job("--max-restarts", count, "--nproc-per-node", 2, config=config, run=run)
    failures: list[str] = []
    kills: list[Left] = []
    for _ in range(count):
        job.go_on(chance.randrange(6, 14))
        kills.append(left_of(run))
        os.kill(chance.choice(job.workers()), signal.SIGKILL)
        if found := wrong_restart(kills[-1], job.restarted()):
            failures.append(f"kill {len(kills)}: {found}")
    right = count - len(failures)
    code, said = job.end()
    if code != 0:
        failures.append(f"the job ends with exit code {code}: {said[-1000:]}")
    code, said = _Job("--nproc-per-node", 2, config=config, run=whole).end()
    assert code == 0, said
    if found := difference(whole, run):
        failures.append(f"it differs from the uninterrupted one: {found}")
    return Row(
        drill="a worker of a torchrun job of 2 ranks killed, again and again (`--max-restarts`)",
        promise="a kill costs at most the work since the last checkpoint; the job finishes with the "
        "uninterrupted run's weights, state and metrics, to the bit",
        count=count,
        figures=f"{right} of {count} went on from the newest checkpoint, with "
        f"{', '.join(str(kill.again) for kill in kills)} batches to do again; "
        f"{'finished, identical' if not failures else 'failed'}",
        failures=tuple(failures),
    )


def wrong_restart(left: Left, said: str) -> str | None:
    """What is wrong with what the workers said since one was killed; None if they go on as they should."""
    if not left.newest:
        return f"no checkpoint before the kill, after {left.done} batches"
    return left.wrongly_continued(said)


def sigterm(count: int, folder: Path, seed: int = 0) -> Row:
    """Send SIGTERM to the launcher that many times, and go on each time."""
    config, chance = _config(folder, epochs=8 + 5 * count), random.Random(seed)
    whole, run = folder / "whole", folder / "run"
    failures: list[str] = []
    stops: list[Stop] = []
    for _ in range(count):
        job = _Job("--nproc-per-node", 2, config=config, run=run, more=("--resume",))
        job.go_on(chance.randrange(3, 9))
        job.ask_to_stop()
        code, said = job.end()
        stops.append(Stop(code=code, said=said, ranks=job.exit_codes()))
        failures += [
            f"stop {len(stops)}: {found}" for found in [*stops[-1].wrong(), *_disagreement(run, stops[-1])]
        ]
    code, said = _Job("--nproc-per-node", 2, config=config, run=run, more=("--resume",)).end()
    if code != 0:
        failures.append(f"it does not go on: {said[-1000:]}")
    assert _Job("--nproc-per-node", 2, config=config, run=whole).end()[0] == 0
    if found := difference(whole, run):
        failures.append(f"it differs from the uninterrupted one: {found}")
    return Row(
        drill="SIGTERM to the launcher of 2 ranks",
        promise="a checkpoint from the next window on which both agree; it goes on as if never stopped",
        count=count,
        figures=f"stopped after batches {', '.join(str(stop.batch) for stop in stops)}, at most "
        f"{max(stop.seconds for stop in stops):.2f} s after it; exit codes "
        f"{', '.join(sorted({code for stop in stops for code in stop.ranks}))} on all ranks; "
        f"{'identical at the end' if not failures else 'failed'}",
        failures=tuple(failures),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """How a job ended that was asked to.

    Attributes:
        code: exit code of the launcher.
        said: by all of them.
        ranks: exit codes of the workers.
    """

    code: int
    said: str
    ranks: tuple[str, ...]

    @property
    def batch(self) -> int:
        """The last one that it has done; -1 if it does not say so."""
        found = _STOPPED.search(self.said)
        return int(found[1]) if found else -1

    @property
    def seconds(self) -> float:
        """From the signal to when all was safe."""
        found = _STOPPED.search(self.said)
        return float(found[2]) if found else float("inf")

    def wrong(self) -> list[str]:
        """What is not as it must be."""
        wrong = []
        if len(_STOPPED.findall(self.said)) != 1:
            wrong.append(f"it does not say once after which batch it has stopped: {self.said[-1000:]}")
        if self.ranks != (str(INTERRUPTED),) * 2:
            wrong.append(f"the ranks end with exit codes {', '.join(self.ranks)}, not {INTERRUPTED} each")
        # the launcher passes the signal on, waits for the ranks, and ends by what it was sent
        if self.code != 1 or f"got signal: {signal.SIGTERM.value}" not in self.said:
            wrong.append(f"the launcher ends with exit code {self.code}: {self.said[-1000:]}")
        return wrong


def _disagreement(run: Path, stop: Stop) -> list[str]:
    """Whether the checkpoint of a stop is not of one window and of both ranks."""
    state, newest = last_state(run), checkpoints(run)[-1]
    of_batch = [name for name in checkpoints(run) if name.startswith(f"batch-{stop.batch:08d}")]
    wrong = []
    if of_batch != [newest] or state["progress"]["batch"] != stop.batch:
        wrong.append(f"stopped after batch {stop.batch}, and the checkpoints are {checkpoints(run)}")
    if Manifest.read(run / "checkpoints" / newest).ranks != 2 or len(state["random"]) != 2:
        wrong.append("the checkpoint is not of both ranks")
    return wrong


class _Job:
    """A torchrun that trains."""

    def __init__(self, *launch: object, config: Path, run: Path, more: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", _WORKER, "train"]
        command += [config, *_SETTINGS, "--out", run, *more]
        self._codes = Path(tempfile.mkdtemp(dir=config.parent, prefix="exit-codes-"))
        env = {**os.environ, "PYTHONPATH": f"{_ROOT / 'src'}:{_ROOT}", "OMP_NUM_THREADS": "1"}
        env["EXIT_CODES"] = str(self._codes)
        self._said = ""
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd="/",
        )

    def go_on(self, windows: int) -> None:
        """Until it has said so many more windows."""
        for _ in range(windows):
            self._read_to("window ")

    def restarted(self) -> str:
        """What it says from now on, until it has said where it goes on after a kill."""
        return self._read_to("resuming ")

    def _read_to(self, beginning: str) -> str:
        """What it says, to the next line that begins so."""
        assert self._process.stdout is not None
        said = ""
        while line := self._process.stdout.readline():
            said += line
            if line.startswith(beginning):
                break
        self._said += said
        assert line, self._said[-2000:]
        return said

    def workers(self) -> list[int]:
        """Their process numbers."""
        launcher = self._process.pid
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return [int(child) for child in children if _trains(int(child))]

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def exit_codes(self) -> tuple[str, ...]:
        """Of the workers, rank by rank."""
        return tuple(file.read_text(encoding="utf-8") for file in sorted(self._codes.iterdir()))

    def end(self) -> tuple[int, str]:
        """Its exit code, and everything that it has said."""
        said, _ = self._process.communicate(timeout=240)
        return self._process.returncode, self._said + said


def _trains(process: int) -> bool:
    try:
        return _WORKER.encode() in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _config(folder: Path, *, epochs: int) -> Path:
    """One of four windows in each epoch, which leaves enough of them for every kill."""
    path = folder / "smooth.yaml"
    path.write_text(YAML.replace("num_epochs: 4", f"num_epochs: {epochs}"))
    return path
