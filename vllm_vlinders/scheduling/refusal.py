"""Requests that the engine core turns away, and how it tells the API server."""

from __future__ import annotations

import math
from typing import Literal

from vllm_vlinders.errors import RequestError

Reason = Literal["deadline", "queue_full"]

_PREFIX = "vlinders"
_LONGEST_RETRY = 60


def stop_reason(reason: Reason, retry_seconds: float) -> str:
    """Return what stands in ``EngineCoreOutput.stop_reason`` of a request that was turned away."""
    return f"{_PREFIX}:{reason}:{min(_LONGEST_RETRY, max(1, math.ceil(retry_seconds)))}"


def as_error(text: object) -> RequestError | None:
    """Return the refusal that a ``stop_reason`` tells of; None if it is none of ours."""
    prefix, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    reason, _, retry = rest.partition(":")
    if prefix != _PREFIX or not retry.isdigit():
        return None
    headers = {"Retry-After": retry}
    if reason == "deadline":
        return RequestError(
            f"the request could not start before its deadline; try again in {retry} s, or allow more time",
            status=503,
            kind="service_unavailable",
            code="deadline_exceeded",
            headers=headers,
        )
    if reason == "queue_full":
        return RequestError(
            f"too many requests of this tenant and priority band are waiting; try again in {retry} s",
            status=429,
            kind="rate_limit_error",
            code="queue_full",
            headers=headers,
        )
    return None
