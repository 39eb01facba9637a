"""What crosses to the engine core with a request, beyond its priority: tenant, deadline and session.

It travels as entries of ``EngineCoreRequest.trace_headers``, the one mapping of texts that every
supported vLLM serialises for generation and pooling alike. The engine core takes them out on arrival,
so that they are not sent back with each token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vllm_vlinders.errors import RequestError
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT

KEY = "x-vlinders"
SESSION_KEY = "x-vlinders-session"
TENANT_HEADER = "X-Vlinders-Tenant"
DEADLINE_HEADER = "X-Vlinders-Deadline-Ms"
_LONGEST_MS = 86_400_000
_TENANT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@/-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Tags:
    """What the API server tells the engine core of a request.

    Attributes:
        tenant: who pays; without a semicolon.
        start_within: seconds, from now, in which it must start; None: no deadline.
    """

    tenant: str = DEFAULT_TENANT
    start_within: float | None = None


def encode(tags: Tags, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return `headers` with `tags` in them."""
    limit = "" if tags.start_within is None else f"{tags.start_within:.3f}"
    return {**(headers or {}), KEY: f"{limit};{tags.tenant}"}


def decode(headers: Mapping[str, str] | None) -> tuple[Tags, Mapping[str, str] | None]:
    """Return the tags in `headers`, and the headers without them (None if nothing is left)."""
    if not headers or KEY not in headers:
        return Tags(), headers
    limit, _, tenant = headers[KEY].partition(";")
    rest = {name: value for name, value in headers.items() if name != KEY}
    return Tags(tenant or DEFAULT_TENANT, float(limit) if limit else None), rest or None


@dataclass(frozen=True, slots=True)
class SessionTag:
    """A session, as the engine knows it.

    Attributes:
        name: a hash of tenant and session id, 16 hexadecimal digits.
        tenant: who pays.
    """

    name: str
    tenant: str


def encode_session(tag: SessionTag, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return `headers` with `tag` in them."""
    return {**(headers or {}), SESSION_KEY: f"{tag.name};{tag.tenant}"}


def session_in(headers: Mapping[str, str] | None) -> SessionTag | None:
    """Return the session in `headers`; None if there is none."""
    if not headers or SESSION_KEY not in headers:
        return None
    name, _, tenant = headers[SESSION_KEY].partition(";")
    return SessionTag(name, tenant)


def without_session(headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return `headers` without the session (None if nothing is left)."""
    return {name: value for name, value in headers.items() if name != SESSION_KEY} or None


def parse_deadline(text: str) -> float:
    """Return the seconds that the deadline header gives.

    Raises:
        RequestError: it is not a whole number of milliseconds from 1 to a day.
    """
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) < len(str(_LONGEST_MS)) + 1:
        milliseconds = int(digits)
        if 1 <= milliseconds <= _LONGEST_MS:
            return milliseconds / 1000
    message = (
        f"{DEADLINE_HEADER}: {text[:64]!r} is not allowed; give a whole number of milliseconds "
        f"from 1 to {_LONGEST_MS}"
    )
    raise RequestError(message, param=DEADLINE_HEADER, code="invalid_deadline")


def parse_tenant(text: str) -> str:
    """Return the tenant that the tenant header names.

    Raises:
        RequestError: it is no name.
    """
    if _TENANT.match(text.strip()):
        return text.strip()
    message = (
        f"{TENANT_HEADER}: {text[:64]!r} is not allowed; give 1 to 64 of the letters A-Z a-z 0-9 . _ @ / -, "
        "the first a letter or digit"
    )
    raise RequestError(message, param=TENANT_HEADER, code="invalid_tenant")
