"""What torchrun has told this process, by its environment."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["_began", "job_of_process", "rank_of_process", "restarted", "started_by", "would_be_restarted"]


def rank_of_process() -> int:
    """The rank that torchrun has given to this process; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def job_of_process() -> str:
    """What tells the torchrun job that has started this process from all others; empty without torchrun.

    A `--rdzv-id` may be used again. The launcher is one process from one restart to the next; where another
    machine takes over, those of the others are still the same.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{name} {platform.node()} {os.getppid()} {_began(os.getppid())}" if name else ""


def _began(process: int) -> str:
    """When a process began, where the system says so: numbers of processes are used again."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def restarted() -> bool:
    """Whether torchrun has started this process again, after one of them had died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def would_be_restarted() -> bool:
    """Whether torchrun would start this process again, did it end with anything but 0."""
    most, done = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("MAX_RESTARTS", "RESTART_COUNT"))
    return most.isdecimal() and done.isdecimal() and int(done) < int(most)


def started_by() -> list[str]:
    """The beginning of the command that starts such processes again."""
    if "WORLD_SIZE" not in os.environ:
        return ["optimscheduler"]
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1"), "-m", "optimscheduler"]
