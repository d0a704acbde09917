"""Generators: seeds that follow from one, states that come back."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from optimscheduler.run.data.rng import (
    derived_seed,
    host_seeded,
    kept,
    random_state,
    restore_random_state,
    seed_everything,
)

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float, float]:
    """A number from each generator; the normal one leaves a second for later in Python and NumPy."""
    return random.gauss(0, 1), float(np.random.randn()), torch.rand(()).item(), torch.randn(()).item()


def test_a_seed_decides_what_is_drawn() -> None:
    seed_everything(2**63 - 1)
    first = draw()
    seed_everything(2**63 - 1)
    assert draw() == first
    seed_everything(5)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_what_is_drawn_in_a_seeded_place_is_a_function_of_the_seed_and_nobody_outside_notices() -> None:
    seed_everything(1)
    draw()
    state = random_state(CPU)
    expected = draw()
    restore_random_state(state, CPU)
    with host_seeded(7):
        inside = draw()
    assert draw() == expected
    draw()
    with host_seeded(7):
        assert draw() == inside
    with host_seeded(8):
        assert draw() != inside


@pytest.mark.parametrize("context", [lambda: kept(CPU), lambda: host_seeded(1)])
def test_generators_are_put_back_after_an_error_too(context: object) -> None:
    seed_everything(1)
    state = random_state(CPU)
    expected = draw()
    restore_random_state(state, CPU)
    with pytest.raises(KeyError), context():  # type: ignore[operator]
        draw()
        raise KeyError
    assert draw() == expected


def test_a_state_survives_a_file_that_is_only_data() -> None:
    seed_everything(3)
    draw()
    file = io.BytesIO()
    torch.save(random_state(CPU), file)
    expected = draw()
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True), CPU)
    assert draw() == expected


def test_derived_seeds_differ_by_what_they_are_for() -> None:
    seeds = [
        derived_seed(seed, what, at) for seed in range(5) for what in ("order", "items") for at in range(50)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, "order", 1) == 7021862330116196507  # changing it would change every run


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_generator_of_a_cuda_device_comes_back() -> None:
    device = torch.device("cuda")
    torch.cuda.manual_seed(1)
    with kept(device):
        inside = torch.rand(3, device=device)
    assert torch.equal(torch.rand(3, device=device), inside)
