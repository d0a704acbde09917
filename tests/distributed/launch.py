"""The command line in processes that torchrun might have started, without what it takes to start them."""

from __future__ import annotations

import contextlib
import os
import socket

from tests.distributed.pool import Pool
from tests.run.command import Said, call

__all__ = ["start"]


def command(port: int, arguments: list[str]) -> Said:
    """In one of the processes."""
    os.environ["MASTER_PORT"] = str(port)
    return call(*arguments)


def start(pool: Pool, *arguments: object) -> list[Said]:
    """What each rank answers."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return pool.run(command, port, [str(argument) for argument in arguments])
