"""A sliding window, in a row of integers that processes can share.

Time is cut into buckets of a 59th of the window. A row holds the last 60 of them: 59 whole ones and the
one that has begun, so at least the whole window. If their sum never exceeds the limit when something is
added, no window of that length, wherever it begins, ever holds more than the limit.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from functools import cache

BUCKETS = 60
_NEWEST = 0
ROW = 1 + BUCKETS
"""How many integers a window takes: the number of its newest bucket, and the buckets."""
Cells = MutableSequence[int] | memoryview


@cache
def width_of(window_ms: int) -> int:
    """Return the milliseconds of one bucket."""
    return -(-window_ms // (BUCKETS - 1))


def advance(cells: Cells, start: int, bucket: int) -> int:
    """Forget what is older than the window that ends with `bucket`; return the newest bucket.

    That one is later than `bucket` where a clock has been set back: then time stands still.
    """
    newest = cells[start + _NEWEST]
    gone = min(bucket - newest, BUCKETS)
    for age in range(gone):
        cells[start + 1 + (bucket - age) % BUCKETS] = 0
    if gone > 0:
        cells[start + _NEWEST] = newest = bucket
    return newest


def total(cells: Cells, start: int) -> int:
    """Return what is in the window."""
    return sum(cells[start + 1 : start + ROW])


def add(cells: Cells, start: int, bucket: int, amount: int) -> None:
    """Add to a bucket that is in the window; what would make it negative makes it zero."""
    place = start + 1 + bucket % BUCKETS
    cells[place] = max(0, cells[place] + amount)


def holds(cells: Cells, start: int, bucket: int) -> bool:
    """Tell whether `bucket` is still in the window."""
    return 0 <= cells[start + _NEWEST] - bucket < BUCKETS


def buckets_until_empty(cells: Cells, start: int) -> int:
    """Return how many buckets must pass until nothing that is in the window now is left in it."""
    newest = cells[start + _NEWEST]
    for age in range(BUCKETS):
        if cells[start + 1 + (newest - age) % BUCKETS]:
            return BUCKETS - age
    return 0


def buckets_until(cells: Cells, start: int, excess: int) -> int:
    """Return how many buckets must pass until `excess` has left the window; `BUCKETS` if more than all."""
    newest = cells[start + _NEWEST]
    for passed in range(1, BUCKETS + 1):
        excess -= cells[start + 1 + (newest + passed) % BUCKETS]
        if excess <= 0:
            return passed
    return BUCKETS
