"""Groups of processes, started when first asked for and kept for the tests that follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed.pool import Pool


@pytest.fixture(scope="session")
def two() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def four() -> Iterator[Pool]:
    pool = Pool(4)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def impatient() -> Iterator[Pool]:
    """Two, that wait for one another three seconds only."""
    pool = Pool(2, timeout=3.0)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def two_started() -> Iterator[Pool]:
    """Two processes as torchrun starts them."""
    pool = Pool(2, joined=False)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def four_started() -> Iterator[Pool]:
    pool = Pool(4, joined=False)
    yield pool
    pool.close()
