"""The command line as torchrun starts it, which writes down its exit code: torchrun keeps that to itself."""

from __future__ import annotations

import os
from pathlib import Path

from optimscheduler.__main__ import main

if __name__ == "__main__":
    try:
        main()
        code: object = 0
    except SystemExit as end:
        code = end.code
        raise
    finally:
        Path(os.environ["EXIT_CODES"], os.environ["RANK"]).write_text(repr(code), encoding="utf-8")
