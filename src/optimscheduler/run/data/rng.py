"""Random number generators: seeds that follow from one, and states that can be kept and put back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

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
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    _seed_host(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(torch_cpu)


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Run something that may use the generators of the CPU and of a device, and put them back afterwards."""
    before = random_state(device)
    try:
        yield
    finally:
        restore_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Where the generators of the CPU and of a device are, as a dict that loads with `weights_only=True`."""
    version, words, gauss = random.getstate()
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.default_generator.get_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put the generators back; that of a CUDA device where one was saved.

    Args:
        state: from `random_state`.
        device: that is trained on.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.default_generator.set_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
