"""A place to try somebody else's code in, which leaves no trace."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import torch

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Inside, nothing is compiled; random numbers, warnings and what is printed are nobody's afterwards.

    Args:
        device: whose random numbers may be drawn, beside the host's.
    """
    drawn, devices = random.getstate(), [] if device.type in ("cpu", "meta") else [device]
    try:
        with (
            torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"),
            torch.compiler.set_stance("force_eager"),
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(drawn)
