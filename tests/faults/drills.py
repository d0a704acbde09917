"""The long form of every drill, and the table of `docs/reliability.md`: `make drills`.

python -m tests.faults.drills             all of them; the page says how long that takes
python -m tests.faults.drills kills ...   some of them; the rows of the others stay as they are
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.faults import configs, damage, elastic, endurance, gradients, hands, kills, memory
from tests.faults.row import Row

_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_ROWS = Path(__file__).parent / "rows.json"
_BEGIN, _END = "<!-- drills -->", "<!-- end of drills -->"

DRILLS: dict[str, tuple[Callable[[int, Path], Row], int]] = {
    "kills": (kills.drill, 60),
    "damage": (damage.drill, 300),
    "gradients": (gradients.drill, 200),
    "configs": (configs.drill, 2000),
    "elastic": (elastic.drill, 5),
    "sigterm": (elastic.sigterm, 5),
    "endurance": (endurance.drill, 100_000),
    "memory": (memory.drill, 3),
    "hands": (hands.drill, 10_000),
}
"""Name -> what to call, and how often it breaks something."""


def main(names: list[str]) -> int:
    """Run drills, and write down what came of them; 1 if a promise was not kept."""
    rows = json.loads(_ROWS.read_text()) if _ROWS.exists() else {}
    kept = True
    for name in names or DRILLS:
        drill, count = DRILLS[name]
        folder, began = Path(tempfile.mkdtemp(prefix=f"drill-{name}-")), time.monotonic()
        row = drill(count, folder)
        minutes = (time.monotonic() - began) / 60
        print(
            f"{name}: {'holds' if row.holds else 'DOES NOT HOLD'}: {row.figures} ({minutes:.1f} min)",
            flush=True,
        )
        for failure in row.failures:
            print(f"  {failure}", flush=True)
        if row.holds:
            shutil.rmtree(folder)
        else:
            print(f"  kept: {folder}", flush=True)
        kept = kept and row.holds
        rows[name] = _told(row, minutes)
    _ROWS.write_text(json.dumps({name: rows[name] for name in DRILLS if name in rows}, indent=1) + "\n")
    _write_page([rows[name] for name in DRILLS if name in rows])
    return 0 if kept else 1


def _told(row: Row, minutes: float) -> dict[str, str]:
    return {
        "drill": row.drill,
        "promise": row.promise,
        "count": f"{row.count:,}",
        "figures": row.figures if row.holds else f"**{len(row.failures)} times not kept**; {row.figures}",
        "minutes": f"{minutes:.1f}",
    }


def table(rows: list[dict[str, str]]) -> str:
    """As it stands in the page: each figure on a line of its own, and how long it took together."""
    lines = ["| what is done to it | how often | what must hold | what came of it | minutes |"]
    lines += ["|---|--:|---|---|--:|"]
    for row in rows:
        cells = {name: cell.replace("|", "\\|") for name, cell in row.items()}
        cells["figures"] = cells["figures"].replace("; ", ";<br>")
        lines.append("| {drill} | {count} | {promise} | {figures} | {minutes} |".format(**cells))
    minutes = sum(float(row["minutes"]) for row in rows)
    return "\n".join([*lines, "", f"Together {minutes:.0f} minutes."])


def _write_page(rows: list[dict[str, str]]) -> None:
    """Put the table between its marks."""
    where = (
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, CPU and gloo."
    )
    text = _PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    content = "\n".join([_BEGIN, "", where, "", table(rows), "", _END])
    _PAGE.write_text(before + content + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
