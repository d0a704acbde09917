"""The packages are in `[test-optimizers]`; where they are not installed, only torch's classes are tried."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("pytorch_optimizer") else ["test_packages.py", "test_runs.py"]
