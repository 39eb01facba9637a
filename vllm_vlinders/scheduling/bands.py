"""Bands: the named ranges of the priority scale, and what waiting is worth on that scale.

A priority has a *level*: the number of its band, plus how far up in the band it stands. Waiting adds
one level every ``aging_seconds``, to all alike. So the order of two waiting requests never changes,
and one number, fixed at arrival, stands for it: ``since``, the arrival moved back by what the level
is worth. The lower ``since`` comes first.

Hence the bound of the policy ``priority``: a request of level l that arrived at a is overtaken only by
requests that arrived before ``a + (5 - l) * aging_seconds``, for no request arrives with a level of 5
or more.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from vllm_vlinders.settings import BandName


@dataclass(frozen=True, slots=True)
class Band:
    """A range of priorities, both ends included."""

    name: BandName
    lowest: int
    highest: int


BANDS = (
    Band("normal", 0, 0),
    Band("low", 1, 50),
    Band("medium", 51, 90),
    Band("high", 91, 100),
    Band("urgent", 101, 1000),
)
_LOWEST = tuple(band.lowest for band in BANDS)


def level(priority: int) -> float:
    """Return the level of `priority`: its band's number, and the fraction of the band below it.

    Beyond the scale, which vLLM's own numbers may be, the levels go on below 0 and above 5.
    """
    if priority < 0:
        return priority / 50
    number = band_of(priority)
    band = BANDS[number]
    return number + (priority - band.lowest) / (band.highest - band.lowest + 1)


def band_of(priority: int) -> int:
    """Return the number of the band that holds `priority`; beyond the scale, of the nearest band."""
    return max(0, bisect_right(_LOWEST, priority) - 1)


def reaches(band: int, priority: int) -> bool:
    """Tell whether a priority in the band of that number can be `priority` or more."""
    return band == len(BANDS) - 1 or BANDS[band].highest >= priority


def since(arrival: float, priority: int, aging_seconds: float) -> float:
    """Return the moment from which a request counts as waiting, in seconds of the same clock."""
    return arrival - level(priority) * aging_seconds
