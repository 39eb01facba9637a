"""What the ledger says, as people and machines read it."""

from __future__ import annotations

import calendar
import csv
import io
import re
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from vllm_vlinders.settings import UsageSettings
from vllm_vlinders.usage.entry import Amounts, Key
from vllm_vlinders.usage.journal import Counted

COLUMNS = (*Key._fields, "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
_PER_THOUSAND = 1000
_DAY_SECONDS = 86_400
_ALLOWED = "give a month as 2026-11, or days as 2026-11-21, not both"
_MONTH = re.compile(r"^\d{4}-\d{2}$")


class Days(NamedTuple):
    """Days of UTC, both ends included, as in ``2026-11-21``."""

    first: str
    last: str


def parse_days(first: str | None, last: str | None, month: str | None, now: float) -> Days:
    """Return the days asked for; this month's so far where none are.

    Args:
        first: the first day, or None.
        last: the last day, or None: today.
        month: as in ``2026-11``, in place of both.
        now: seconds since 1970.

    Raises:
        ValueError: they are none; the message says what is allowed.
    """
    today = datetime.fromtimestamp(now, UTC).date()
    if month is not None and (first or last or not _MONTH.match(month)):
        raise ValueError(_ALLOWED)
    try:
        if month is not None:
            begin = date.fromisoformat(f"{month}-01")
            end = begin.replace(day=calendar.monthrange(begin.year, begin.month)[1])
        else:
            end = date.fromisoformat(last) if last else today
            begin = date.fromisoformat(first) if first else end.replace(day=1)
    except ValueError:
        raise ValueError(_ALLOWED) from None
    if end < begin:
        message = f"the last day, {end}, is before the first, {begin}"
        raise ValueError(message)
    return Days(str(begin), str(end))


def rows(found: Mapping[Key, Amounts]) -> list[dict[str, Any]]:
    """Return the lines by the names of `COLUMNS`."""
    return [dict(zip(COLUMNS, (*key, *amounts), strict=True)) for key, amounts in found.items()]


def report(
    found: Mapping[Key, Amounts],
    lost: Counted,
    days: Days,
    gpus: UsageSettings | None = None,
    now: float | None = None,
) -> dict[str, Any]:
    """Return lines, sums, and what the GPUs cost in those days (as far as they have passed).

    Args:
        found: the lines.
        lost: what is missing in them.
        days: of which days.
        gpus: what the GPUs cost; None where the lines are not all that ran on them.
        now: seconds since 1970; None: the clock's.
    """
    total = Amounts()
    for amounts in found.values():
        total = total.plus(amounts)
    summary: dict[str, Any] = {
        "first": days.first,
        "last": days.last,
        "rows": rows(found),
        "total": dict(zip(COLUMNS[len(Key._fields) :], total, strict=True)),
        "lost": lost._asdict(),
    }
    if gpus is not None and gpus.gpu_hour is not None:
        hours = _hours(days, time.time() if now is None else now)
        cost = gpus.gpu_hour * gpus.gpus * hours
        summary["gpus"] = {
            "hours": round(hours * gpus.gpus, 3),
            "cost": cost,
            "cost_per_1k_tokens": cost / total.tokens * _PER_THOUSAND if total.tokens else None,
        }
    return summary


def as_csv(found: Mapping[Key, Amounts]) -> str:
    """Return the lines as CSV, with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(found))
    return text.getvalue()


def _hours(days: Days, now: float) -> float:
    begin, last = (_midnight(day) for day in days)
    return max(0.0, (min(last + _DAY_SECONDS, now) - begin) / 3600)


def _midnight(day: str) -> float:
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp()
