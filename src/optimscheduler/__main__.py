"""`python -m optimscheduler` and the command `optimscheduler`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from optimscheduler.run.commands.cli import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("optimscheduler"):
            raise
        print(
            f"error: the command line needs {error.name!r}, which is not installed: "
            "pip install 'optimscheduler[run]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()
