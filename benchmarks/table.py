"""The table: the machine, and what every row came to in every run."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Final

import torch

from benchmarks.measure import Result
from benchmarks.rows import Row
from benchmarks.timing import Measured

RESULTS: Final = Path(__file__).parent / "results"
HEADINGS: Final = ("what", "against", "median", "95 % bound", "bar", "pairs", "verdict")

Results = Mapping[Row, Sequence[Result]]
"""What each run of a row came to."""


def machine_name() -> str:
    """A slug for the machine."""
    if torch.cuda.is_available():
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return f"cpu-{os.cpu_count()}-cores"


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    told = {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        "memory": f"{memory:.0f} GiB",
        "software": f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}",
        "measured": f"{date.today().isoformat()}, commit {_commit()}",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
    if torch.cuda.is_available():
        told["accelerator"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return told


def shown(result: Result) -> str:
    """One run in a line."""
    return result if isinstance(result, str) else f"{result.median:.3g} (bound {result.bound:.3g})"


def lines(results: Results) -> list[tuple[str, ...]]:
    """A tuple for each row, in the order of `HEADINGS`."""
    return [(row.name, row.against, *_told(row, runs)) for row, runs in results.items()]


def verdict(row: Row, runs: Sequence[Result]) -> str:
    """Met if the median of every run keeps to the bar."""
    if any(isinstance(run, str) for run in runs):
        return f"not measured: {next(run for run in runs if isinstance(run, str))}"
    if row.bar is None:
        return "no bar"
    kept = [run.median >= row.bar if row.at_least else run.median <= row.bar for run in runs]
    return f"{'met' if all(kept) else 'not met'} ({sum(kept)} of {len(kept)} runs)"


def printed(results: Results) -> str:
    """The table for a terminal."""
    table = [HEADINGS, *lines(results)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) for line in table)


def write(results: Results, told: Mapping[str, str], name: str, command: str) -> Path:
    """`results/<name>.md`, with the numbers in `results/<name>.json` beside it."""
    how = {row.how: None for row in results}
    text = [
        f"# {name}",
        "",
        *[f"- {key}: {value}" for key, value in told.items()],
        f"- command: `{command}`",
        "",
        "Ratios; the median of the runs' medians, the worst bound of the runs. How to read it:",
        "[the benchmarks](../README.md).",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *[f"| {' | '.join(line)} |" for line in lines(results)],
        "",
        "How it was measured:",
        "",
        *[f"- {one}: {', '.join(_names(results, one))}" for one in how],
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text("\n".join(text))
    rows = [
        {"row": row.name, "against": row.against, "bar": row.bar, "runs": [_plain(run) for run in runs]}
        for row, runs in results.items()
    ]
    path.with_suffix(".json").write_text(json.dumps({"machine": told, "rows": rows}, indent=1) + "\n")
    return path


def _told(row: Row, runs: Sequence[Result]) -> tuple[str, ...]:
    bar = "" if row.bar is None else f"{'>=' if row.at_least else '<='} {row.bar:g}"
    measured = [run for run in runs if isinstance(run, Measured)]
    if not measured:
        return "", "", bar, "", verdict(row, runs)
    worst = min if row.at_least else max
    middle, bound = median(run.median for run in measured), worst(run.bound for run in measured)
    pairs = f"{len(measured)} x {measured[0].pairs}"
    return f"{middle:.3g}", f"{bound:.3g}", bar, pairs, verdict(row, runs)


def _plain(run: Result) -> object:
    return run if isinstance(run, str) else asdict(run)


def _names(results: Results, how: str) -> list[str]:
    """The rows that were measured in this way, each once."""
    return list(dict.fromkeys(row.name for row in results if row.how == how))


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found.group(1).strip() if found else platform.processor()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip()
