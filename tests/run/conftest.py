"""A run leaves this process as it was: threads, generators, the places where Python looks for modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from optimscheduler.run.randomness import kept


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with kept(torch.device("cpu")):
        yield
    torch.set_num_threads(threads)
