"""What a metric is, how prometheus_client gets it, and the quick ways to observe.

prometheus_client is imported on first use: it must come after vLLM has set its multiprocess directory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric; identity is its equality.

    Attributes:
        name: as it stands in ``/metrics``.
        kind: its type.
        meaning: its help text.
        labels: the names of its labels.
        by_principal: whether it also has the labels of ``metrics.labels``.
        buckets: upper bounds, of a histogram.
        across: how a gauge is put together from several processes, as prometheus_client calls it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    by_principal: bool = False
    buckets: tuple[float, ...] = SECONDS
    across: Literal["livesum", "livemin", "livemostrecent"] = "livesum"


@cache
def counter(family: Family, more: tuple[str, ...] = ()) -> Counter:
    """Return the counter of `family`; `more` are labels beyond its own."""
    from prometheus_client import Counter

    return Counter(family.name.removesuffix("_total"), family.meaning, [*family.labels, *more])


@cache
def gauge(family: Family) -> Gauge:
    """Return the gauge of `family`."""
    from prometheus_client import Gauge

    return Gauge(family.name, family.meaning, family.labels, multiprocess_mode=family.across)


@cache
def histogram(family: Family) -> Histogram:
    """Return the histogram of `family`."""
    from prometheus_client import Histogram

    return Histogram(family.name, family.meaning, family.labels, buckets=family.buckets)


def observe(child: Any, bounds: Sequence[float], value: float) -> None:
    """Add one observation; prometheus_client looks for its bucket one by one.

    Args:
        child: a histogram, with its labels if it has any.
        bounds: its buckets.
        value: what was observed.
    """
    child._sum.inc(value)
    child._buckets[bisect_left(bounds, value)].inc(1)


def observe_many(child: Any, counts: Sequence[int], total: float) -> None:
    """Add observations that were counted by bucket before; prometheus_client takes one at a time.

    Args:
        child: a histogram, with its labels if it has any.
        counts: for each bucket, the last one without a bound, the number of observations in it.
        total: their sum.
    """
    child._sum.inc(total)
    for bucket, count in zip(child._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
