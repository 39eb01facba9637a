"""Requests that the engine core turns away, and how it tells the API server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vllm_vlinders.errors import RequestError

Reason = Literal["deadline", "queue_full"]


@dataclass(frozen=True)
class _Answer:
    status: int
    kind: str
    code: str
    message: str


_ANSWERS: dict[str, _Answer] = {
    "deadline": _Answer(
        503,
        "service_unavailable",
        "deadline_exceeded",
        "the request could not start before its deadline; try again in {} s, or allow more time",
    ),
    "queue_full": _Answer(
        429,
        "rate_limit_error",
        "queue_full",
        "too many requests of this tenant and priority band are waiting; try again in {} s",
    ),
}
_PREFIX = "vlinders"
_LONGEST_RETRY = 60


def stop_reason(reason: Reason, retry_seconds: float) -> str:
    """Return what stands in ``EngineCoreOutput.stop_reason`` of a request that was turned away."""
    return f"{_PREFIX}:{reason}:{min(_LONGEST_RETRY, max(1, math.ceil(retry_seconds)))}"


def as_error(text: object) -> RequestError | None:
    """Return the refusal that a ``stop_reason`` tells of; None if it is none of ours."""
    prefix, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    reason, _, retry = rest.partition(":")
    answer = _ANSWERS.get(reason)
    if prefix != _PREFIX or answer is None or not retry.isdigit():
        return None
    return RequestError(
        answer.message.format(retry),
        status=answer.status,
        kind=answer.kind,
        code=answer.code,
        headers={"Retry-After": retry},
    )
