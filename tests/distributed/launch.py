"""The command line in processes that torchrun might have started, without what it takes to start them."""

from __future__ import annotations

import contextlib
import os
import socket

from tests.distributed.pool import Pool
from tests.run.command import Said, call

__all__ = ["command", "free_port", "start"]


def command(port: int, arguments: list[str]) -> Said:
    """In one of the processes."""
    os.environ["MASTER_PORT"] = str(port)
    return call(*arguments)


def start(pool: Pool, *arguments: object) -> list[Said]:
    """What each rank answers."""
    return pool.run(command, free_port(), [str(argument) for argument in arguments])


def free_port() -> int:
    """One that nobody listens on."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])
