"""What is asked of a ledger, and what it answers: tuples, for there are many in each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Charge(NamedTuple):
    """Something to be counted against one limit.

    Attributes:
        subject: whose limit, as ``tenant:acme``.
        limit: its name, as ``tokens_per_minute``.
        amount: how much; 0 asks how much is left.
        most: the limit.
        window_ms: its length; 0 for what is counted until it is given back.
    """

    subject: str
    limit: str
    amount: int
    most: int
    window_ms: int


class Entry(NamedTuple):
    """A charge that was counted, and the bucket of the window in which it was."""

    charge: Charge
    bucket: int


def settled(
    entries: Iterable[Entry], used: Callable[[Charge], int]
) -> tuple[list[int], dict[tuple[str, str], int]]:
    """Return how much of each entry was really used, and how much more than all of them, by limit.

    Args:
        entries: of one or several receipts; of one limit, the first are used up first.
        used: says, of all charges of one limit together, how much it was.
    """
    kept: list[int] = []
    left: dict[tuple[str, str], int] = {}
    for charge, _ in entries:
        name = charge.subject, charge.limit
        owed = left.setdefault(name, used(charge))
        kept.append(min(owed, charge.amount))
        left[name] = owed - kept[-1]
    return kept, left


class Level(NamedTuple):
    """How full a limit is, after what was asked.

    Attributes:
        charge: what was asked.
        used: what is counted now.
        reset_ms: when all of it will have left the window.
    """

    charge: Charge
    used: int
    reset_ms: int

    @property
    def remaining(self) -> int:
        """What is left."""
        return max(0, self.charge.most - self.used)


class Refusal(NamedTuple):
    """The limit that leaves no room; nothing was counted, of any of them.

    Attributes:
        charge: what was asked of it.
        used: what is counted.
        wait_ms: when there will be room; None if never, for it is more than the limit.
        outage: nothing is known of the limit: Redis does not answer, and ``quotas.on_outage`` is ``deny``.
    """

    charge: Charge
    used: int
    wait_ms: int | None
    outage: bool = False


class Receipt(NamedTuple):
    """All charges were counted, in one step."""

    entries: tuple[Entry, ...]
    levels: tuple[Level, ...]
