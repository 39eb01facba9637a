"""API keys: ``vk_<id>_<secret>``, their hashes, and what is stored of them.

A secret has 256 random bits. So its hash need not be slow, as that of a password must be: nobody can
try out 2^256 secrets, however fast each trial is. The HMAC's key, the pepper, is not in the store: who
steals the store can neither find a secret nor write a record of their own.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.errors import CredentialError, SettingsError

KEY_ID = re.compile(r"^[0-9a-f]{12}\Z")
_KEY = re.compile(r"^vk_([0-9a-f]{12})_[0-9a-f]{64}\Z")
_KEY_ANYWHERE = re.compile(r"vk_[0-9a-f]{12}_[0-9a-f]+")
_ID_BYTES, _SECRET_BYTES = 6, 32
_LEAST_PEPPER = 16
PREFIX = "vk_"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is stored of one key; times are seconds since 1970, None where there is no such moment.

    Attributes:
        id: the public part of the key.
        digest: hexadecimal HMAC-SHA-256 of the whole key under the pepper.
        principal: whose key it is; keys that replace one another share it.
        tenant: who pays.
        role: the name of the principal's role.
        label: for people.
        created: when it was made.
        not_before: it does not count before.
        expires: it does not count from then on.
        revoked: when it was revoked.
        last_used: when it was last seen, to half a minute or so.
    """

    id: str
    digest: str = field(repr=False)
    principal: str
    tenant: str
    role: str
    label: str = ""
    created: float
    not_before: float | None = None
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None

    def state(self, now: float) -> str:
        """Return ``active``, ``revoked``, ``expired`` or ``not_yet_valid``."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is not None and now >= self.expires:
            return "expired"
        return "not_yet_valid" if self.not_before is not None and now < self.not_before else "active"


class Pepper:
    """Makes the digests; holds the pepper and shows it nowhere."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        if len(secret) < _LEAST_PEPPER:
            message = (
                f"auth.keys.pepper: shorter than {_LEAST_PEPPER} characters; make one: openssl rand -hex 32"
            )
            raise SettingsError(message)
        self._secret = secret.encode()

    def digest(self, key: str) -> bytes:
        """Return the HMAC of `key`."""
        return hmac.digest(self._secret, key.encode("utf-8", "surrogateescape"), "sha256")


def make_key() -> tuple[str, str]:
    """Return the id of a new key, and the key."""
    key_id = secrets.token_hex(_ID_BYTES)
    return key_id, f"{PREFIX}{key_id}_{secrets.token_hex(_SECRET_BYTES)}"


def redact(text: str) -> str:
    """Return `text` with the secrets of all keys in it left out."""
    return _KEY_ANYWHERE.sub(lambda found: found[0][: len(PREFIX) + 12] + "_…", text)


class _Known(NamedTuple):
    record: KeyRecord
    digest: bytes
    principal: Principal


class KeyIndex:
    """All keys of the store, as one process has them in memory."""

    def __init__(self, pepper: Pepper) -> None:
        self.used: dict[str, float] = {}
        self._known: dict[str, _Known] = {}
        self._pepper = pepper
        self._nobody = pepper.digest("")

    def __len__(self) -> int:
        return len(self._known)

    @property
    def records(self) -> dict[str, KeyRecord]:
        """All records, by id."""
        return {key_id: known.record for key_id, known in self._known.copy().items()}

    def put(self, record: KeyRecord) -> None:
        """Add `record`, or put it in the place of the one of its id."""
        principal = Principal(record.principal, record.tenant, record.role, record.id)
        self._known[record.id] = _Known(record, bytes.fromhex(record.digest), principal)

    def authenticate(self, key: str, now: float) -> Principal:
        """Return whose `key` it is.

        Raises:
            CredentialError: nobody's, or it does not count at `now`.
        """
        found = _KEY.match(key)
        if found is None:
            raise CredentialError("malformed")
        key_id = found[1]
        known = self._known.get(key_id)
        digest = self._nobody if known is None else known.digest
        right = hmac.compare_digest(self._pepper.digest(key), digest)
        if not right or known is None:
            raise CredentialError("unknown" if known is None else "wrong", key_id)
        state = known.record.state(now)
        if state != "active":
            raise CredentialError(state, key_id)
        self.used[key_id] = now
        return known.principal
