"""How much memory it takes to go on from a large checkpoint."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from optimscheduler.run.checkpoint.store import Checkpoints
from tests.faults.row import Row

__all__ = ["drill"]

_MOST = 2.2  # times the size of the checkpoint

_YAML = """\
num_epochs: 1
use_amp: false
device: cpu
save_in_background: false
train_cfg:
  model: {type: tests.run.tiny.GptSized, conf: {width: 768, layers: LAYERS, words: WORDS}}
  optim_sches: {conf: {optim_type: AdamW, optim_conf: {lr: 1e-4}}}
data_cfg:
  train: {type: tests.run.tiny.Points, conf: {count: 1}}
  batch_size: 1
"""


def drill(count: int, folder: Path, *, layers: int = 12, words: int = 50257) -> Row:
    """Load a checkpoint of a model of so many layers and words, with its optimizer, that many times."""
    config = folder / "large.yaml"
    config.write_text(_YAML.replace("LAYERS", str(layers)).replace("WORDS", str(words)))
    run, failures, ratios = folder / "run", [], []
    _peak("train", config, "--out", run)
    (checkpoint,) = Checkpoints(run / "checkpoints").all()
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    for _ in range(count):
        ratios.append(_peak("train", config, "--out", run, "--resume") / size)
        if ratios[-1] > _MOST:
            failures.append(f"{ratios[-1]:.2f} times the size of the checkpoint")
    return Row(
        drill=f"loading a checkpoint of {size / 1e9:.2f} GB (GPT-2 small with AdamW)",
        promise=f"the whole process, Python and torch included, peaks at no more than {_MOST} times its size",
        count=count,
        figures=f"at most {max(ratios):.2f} times",
        failures=tuple(failures),
    )


def _peak(*arguments: object) -> int:
    """Bytes that a command had in memory at most."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "optimscheduler", *map(str, arguments)]
    process = os.posix_spawn(sys.executable, command, env)
    _, status, used = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_maxrss * 1024
