"""Which session a request belongs to: names as clients give them, and what the engine is told instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from vllm_vlinders.errors import RequestError

LONGEST = 256
_NAME = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_HASH_BYTES = 8
_FIRST_ROLES = ("system", "developer", "user")


def session_hash(tenant: str, session: str) -> str:
    """Return what the engine is told instead of a session's id; those of two tenants never meet.

    It has no key, so that every API server process makes the same one.
    """
    return blake2b(f"{tenant}\0{session}".encode(), digest_size=_HASH_BYTES).hexdigest()


def parse_session(value: str, where: str) -> str:
    """Return the session id that `where` gives.

    Raises:
        RequestError: it is no text of 1 to 256 printable ASCII characters.
    """
    if _NAME.fullmatch(value):
        return value
    message = (
        f"{where}: {value[:32]!r} is no session id; give 1 to {LONGEST} printable ASCII characters, without "
        "spaces at the ends"
    )
    raise RequestError(message, param=where, code="invalid_session")


def prefix_of(payload: Mapping[str, Any]) -> str | None:
    """Return what two requests of one conversation share and others do not; None if there is nothing.

    That is everything up to the first message of the user: later turns repeat it word by word.
    """
    messages = payload.get("messages", payload.get("input"))
    if not isinstance(messages, list):
        return None
    digest, found = blake2b(digest_size=_HASH_BYTES), False
    for text in (payload.get("model"), payload.get("instructions"), payload.get("system")):
        digest.update(f"{text!r}\0".encode())
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in _FIRST_ROLES:
            break
        digest.update(f"{message.get('role')}\0{message.get('content')!r}\0".encode())
        if message["role"] == "user":
            found = True
            break
    return f"prefix {digest.hexdigest()}" if found else None
