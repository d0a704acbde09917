"""Processes that form a gloo group and run one function of the tests after the other."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from coverage import Coverage

from tests.layouts import lay, layout

__all__ = ["Pool"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch.distributed.tensor"])
_PATIENCE = 60.0  # seconds for one function; a hang must end as an error


class Pool:
    """So many ranks; `run` calls a function in each of them at once.

    They are a process group already, or, with `joined=False`, they are told what torchrun would tell them.

    A function that fails on any rank leaves the others in unknown places, so the processes are then
    replaced by new ones.
    """

    def __init__(self, world: int, timeout: float = 30.0, joined: bool = True) -> None:
        self.world, self._timeout, self._joined = world, timeout, joined
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """The results, rank by rank; what a rank raised is raised here, with its traceback in the text."""
        outcomes = self.outcomes(function, *args)
        for rank, (error, result) in enumerate(outcomes):
            if error:
                raise AssertionError(f"rank {rank}: {result}")
        return [result for _, result in outcomes]

    def outcomes(self, function: Callable[..., Any], *args: Any) -> list[tuple[str, Any]]:
        """Rank by rank, an exception's class and traceback, or an empty string and the result."""
        if not self._pipes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, args))
        outcomes = []
        for pipe in self._pipes:
            outcomes.append(pipe.recv() if pipe.poll(_PATIENCE) else ("TimeoutError", "no answer"))
        if any(error for error, _ in outcomes):
            self.close()
        return outcomes

    def close(self) -> None:
        """End the processes; those that are stuck somewhere by force."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join(5.0)
            process.kill()
            process.join()
        self._pipes, self._processes = [], []

    def _start(self) -> None:
        store = Path(tempfile.mkdtemp()) / "store"
        how = (str(store) if self._joined else None, self._timeout, bool(Coverage.current()), layout())
        for rank in range(self.world):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs, rank, self.world, *how), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(ours)


def _serve(
    pipe: Connection, rank: int, world: int, store: str | None, timeout: float, measured: bool, layout: str
) -> None:
    lay(layout)
    measuring = Coverage(data_suffix=True) if measured else None
    if measuring:
        measuring.start()
    try:
        _answer(pipe, rank, world, store, timeout)
    finally:
        if measuring:
            measuring.stop()
            measuring.save()


def _answer(pipe: Connection, rank: int, world: int, store: str | None, timeout: float) -> None:
    torch.set_num_threads(1)
    if store is None:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ.update({key: str(value) for key, value in told.items()} | {"MASTER_ADDR": "localhost"})
    else:
        patience = timedelta(seconds=timeout)
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=patience
        )
    for function, args in iter(pipe.recv, None):
        try:
            pipe.send(("", function(*args)))
        except Exception as error:
            pipe.send((type(error).__name__, traceback.format_exc()))
