"""Batches that are passed over: `--skip-batches 1200-1210`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from optimscheduler.errors import ConfigError

__all__ = ["BatchRanges"]

_RANGE: Final = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


@dataclass(frozen=True, slots=True)
class BatchRanges:
    """Numbers of batches, as ranges that do not touch, in order.

    Attributes:
        ranges: first and last of each, from 1.

    >>> ranges = BatchRanges.read("1200-1210,7,1205-1211", "--skip-batches")
    >>> str(ranges), 7 in ranges, 8 in ranges
    ('7,1200-1211', True, False)
    """

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read(cls, text: str, where: str) -> BatchRanges:
        """Those that a text names.

        Args:
            text: numbers and ranges, `1200-1210,1300`; empty for none.
            where: the text is from, for the message.

        Raises:
            ConfigError: it names none.
        """
        parts = [_RANGE.fullmatch(part.strip()) for part in text.split(",")] if text else []
        pairs = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
        if len(pairs) < len(parts) or any(not 1 <= first <= last for first, last in pairs):
            raise ConfigError(
                f"{where} must be numbers of batches from 1, like 1200-1210 or 7,1200-1210, got {text!r:.80}"
            )
        return cls(_joined(pairs))

    @classmethod
    def of(cls, batches: Iterable[int]) -> BatchRanges:
        """Those of these numbers."""
        return cls(_joined((batch, batch) for batch in batches))

    def __or__(self, other: BatchRanges) -> BatchRanges:
        return BatchRanges(_joined([*self.ranges, *other.ranges]))

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __contains__(self, batch: int) -> bool:
        return any(first <= batch <= last for first, last in self.ranges)

    def __str__(self) -> str:
        return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in self.ranges)


def _joined(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if joined and first <= joined[-1][1] + 1:
            first, last = joined[-1][0], max(joined.pop()[1], last)
        joined.append((first, last))
    return tuple(joined)
