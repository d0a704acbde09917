"""How the laws are tried, and the groups of processes that tests share.

Laws: the same examples every time, and no deadline on a busy machine. Processes: started when first asked
for and kept for the tests that follow; those tests are marked as one group, so that one worker has them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.distributed.pool import Pool
from tests.layouts import lay

settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--layout", choices=["auto", "flat", "loose"], help="of every OptimScheduler not told")


def pytest_configure(config: pytest.Config) -> None:
    if layout := config.getoption("--layout"):
        lay(layout)


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


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    """What a test has set the level of the log to, ends with it."""
    logger = logging.getLogger("optimscheduler")
    level = logger.level
    yield
    logger.setLevel(level)
