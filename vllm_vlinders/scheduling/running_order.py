"""The running requests, kept in the order of their urgency from step to step."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def restore_order(running: list[R], last: R | None, urgency: Callable[[R], int]) -> None:
    """Sort `running` in place, stably, as ``running.sort(key=urgency)`` does.

    A step removes some of the requests and appends others, few of many: those are inserted, and the
    rest, known to be in order, is not looked at.

    Args:
        running: in order up to `last`, where `last` is in it.
        last: the one that stood last when `running` was last in order.
        urgency: the key; smaller comes first.
    """
    known = len(running)
    while known and running[known - 1] is not last:
        known -= 1
    if not known:
        running.sort(key=urgency)
        return
    added = running[known:]
    del running[known:]
    for request in added:
        insort(running, request, key=urgency)
