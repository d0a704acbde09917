"""`python -m optimscheduler` and the command `optimscheduler`."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["main"]


_EXTRA: Final = {"matplotlib", "numpy", "pydantic", "rich", "safetensors", "typer", "yaml"}


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from optimscheduler.run.commands.cli import app

        app()
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        print(
            f"error: the command line needs {error.name!r}, which is not installed: "
            "pip install 'optimscheduler[run]'",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
