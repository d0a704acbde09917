"""Random number generators: seeds that follow from one, and states that can be kept and put back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["derived_seed", "host_seeded", "kept", "random_state", "restore_random_state", "seed_everything"]


def derived_seed(*parts: int | str) -> int:
    """A seed that follows from what it is for, 0 to 2^63 - 1.

    Args:
        *parts: for example the run's seed, `"order"` and the epoch.

    >>> derived_seed(0, "order", 1) == derived_seed(0, "order", 1) != derived_seed(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device.

    Args:
        seed: 0 to 2^63 - 1.
    """
    _seed_host(seed)
    torch.manual_seed(seed)


def _seed_host(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def host_seeded(seed: int) -> Iterator[None]:
    """Run something with the generators of the CPU seeded, and put them back afterwards.

    What happens inside is a function of the seed, and nothing outside notices it.
    """
    before = _host_state()
    _seed_host(seed)
    try:
        yield
    finally:
        _restore_host(before)


@contextmanager
def kept() -> Iterator[None]:
    """Run something that may use any generator, and put all of them back afterwards."""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)


def random_state() -> dict[str, Any]:
    """Where all generators are, as a plain dict that loads with `weights_only=True`."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return _host_state() | {"cuda": cuda}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put all generators back; those of CUDA devices where there are as many as there were.

    Args:
        state: from `random_state`.
    """
    _restore_host(state)
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _host_state() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.default_generator.get_state(),
    }


def _restore_host(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.default_generator.set_state(state["torch"])
