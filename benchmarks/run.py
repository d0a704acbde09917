"""Measure, print the table, write it down: `python -m benchmarks.run`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Final

from benchmarks import figure, gpu, memory, table
from benchmarks.measure import Result, measure
from benchmarks.rows import Row, cases

BUSY: Final = 0.5  # load of the last minute; with two threads on two cores anything beside them is in the way


def arguments() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, one run: to try things out")
    parser.add_argument("--rows", default="", metavar="PATTERN", help="only rows whose name has this pattern")
    parser.add_argument("--machine", default=table.machine_name(), metavar="NAME", help="name of the results")
    parser.add_argument("--runs", type=int, default=3, help="times that every row is measured (3)")
    parser.add_argument("--gpu", action="store_true", help="the rows of a CUDA machine")
    parser.add_argument("--no-figure", action="store_true", help="leave the figure out")
    return parser.parse_args()


def on_cpu(pattern: re.Pattern[str], *, quick: bool) -> Iterator[dict[Row, Result]]:
    """One run of every row that was asked for."""
    for case in cases():
        if any(pattern.search(row.name) for row in case.rows):
            yield measure(case, quick=quick)
    if pattern.search(memory.ROW.name):
        yield {memory.ROW: memory.compare(quick=quick)}


def main() -> None:
    """Everything that was asked for, with a line for every row when it is there."""
    asked, told, start = arguments(), table.machine(), time.monotonic()
    if os.getloadavg()[0] > BUSY:
        print(f"this machine is busy (load {told['load before']}): the numbers will be noise")
    rows = gpu.measured if asked.gpu else on_cpu
    results: dict[Row, list[Result]] = {}
    for run in range(1 if asked.quick else asked.runs):
        for some in rows(re.compile(asked.rows, re.IGNORECASE), quick=asked.quick):
            for row, result in some.items():
                results.setdefault(row, []).append(result)
                passed = f"{time.monotonic() - start:5.0f} s  run {run + 1}"
                print(f"{passed}  {row.name}, against {row.against}: {table.shown(result)}", flush=True)
    print(f"\n{table.printed(results)}\n")
    command = " ".join(["python -m benchmarks.run", *sys.argv[1:]])
    print(table.write(results, told, asked.machine, command))
    if not (asked.gpu or asked.no_figure or asked.rows):
        measured = figure.points(quick=asked.quick)
        (table.RESULTS / f"{asked.machine}.figure.json").write_text(json.dumps(measured, indent=1) + "\n")
        print(*figure.save(measured, asked.machine))
    print(f"{time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
