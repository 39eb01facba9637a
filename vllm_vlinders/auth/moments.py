"""Moments as people write them, and records of keys as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from vllm_vlinders.auth.keys import KeyRecord
from vllm_vlinders.errors import KeyRequestError

_DURATION = re.compile(r"^(\d{1,6})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""All moments are before it, so that each can be written."""
_MOMENTS = ("created", "not_before", "expires", "revoked", "last_used")
_FORMS = "a duration from now such as 90s, 15m, 12h or 30d, or a moment such as 2027-01-31T00:00:00Z"


def parse_duration(text: object, field: str) -> float:
    """Return the seconds of a duration such as ``12h``.

    Raises:
        KeyRequestError: it is none.
    """
    found = _DURATION.match(text) if isinstance(text, str) else None
    if found is None:
        raise KeyRequestError(f"{field}: {text!r:.80} is not a duration such as 90s, 15m, 12h or 30d", field)
    return float(int(found[1]) * _SECONDS[found[2]])


def parse_moment(text: object, field: str, now: float) -> float | None:
    """Return the moment that `text` names, in seconds since 1970; None for None.

    Raises:
        KeyRequestError: it names none.
    """
    if text is None:
        return None
    if isinstance(text, str) and _DURATION.match(text):
        return now + parse_duration(text, field)
    try:
        moment = datetime.fromisoformat(str(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise KeyRequestError(f"{field}: {text!r:.80} is not allowed; give {_FORMS}", field) from None


def describe(record: KeyRecord, now: float) -> dict[str, Any]:
    """Return what may be shown of a record, JSON-serialisable: never its digest."""
    shown: dict[str, Any] = {
        "id": record.id,
        "principal": record.principal,
        "tenant": record.tenant,
        "role": record.role,
        "label": record.label,
        "state": record.state(now),
    }
    for name in _MOMENTS:
        moment = getattr(record, name)
        shown[name] = None if moment is None else _iso(moment)
    return shown


def _iso(moment: float) -> str:
    try:
        written = datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(moment)  # that of a record which somebody else has written
    return written.replace("+00:00", "Z")
