"""Creating, rotating and revoking keys, wherever they are kept: one place for command line and HTTP."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vllm_vlinders.auth.audit import Audit
from vllm_vlinders.auth.keys import KEY_ID, KeyRecord, Pepper, make_key
from vllm_vlinders.auth.moments import LATEST
from vllm_vlinders.auth.principal import NAME, NAME_RULE
from vllm_vlinders.auth.store.base import KeyStore
from vllm_vlinders.errors import KeyRequestError
from vllm_vlinders.settings import AuthSettings

DEFAULT_OVERLAP = 24 * 3600.0
_LONGEST_LABEL = 200
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment at which it is known whole."""

    key: str
    record: KeyRecord


class KeyOffice:
    """Changes the store, and writes each change to the audit log.

    Args:
        store: where the keys are; None for an office that only makes them.
        pepper: makes their hashes.
        settings: knows the roles.
        audit: gets one line for each change.
        actor: who asks, for the audit log.
        clock: the time, in seconds since 1970.
    """

    def __init__(
        self,
        store: KeyStore | None,
        pepper: Pepper,
        settings: AuthSettings,
        audit: Audit,
        *,
        actor: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept, self._pepper, self._settings = store, pepper, settings
        self._audit, self._actor, self._clock = audit, actor, clock

    @property
    def _store(self) -> KeyStore:
        if self._kept is None:
            raise KeyRequestError("this office has no store of keys", "store")
        return self._kept

    def create(self, **wishes: Any) -> NewKey:
        """Make a key and store what is to be known of it; see `make`.

        Raises:
            KeyRequestError: a value is not allowed, or the store is read-only.
            StoreError: the store does not answer.
        """
        store, new = self._store, self.make(**wishes)
        store.add(new.record)
        self._note("key.created", new.record)
        return new

    def make(
        self,
        *,
        tenant: str,
        role: str,
        principal: str | None = None,
        label: str = "",
        not_before: float | None = None,
        expires: float | None = None,
    ) -> NewKey:
        """Return a new key that nobody has stored.

        Args:
            tenant: who pays.
            role: one of the settings' or the built-in ones.
            principal: whose key; the key's own id where None.
            label: for people.
            not_before: seconds since 1970.
            expires: seconds since 1970.

        Raises:
            KeyRequestError: a value is not allowed.
        """
        key_id, key = make_key()
        record = KeyRecord(
            id=key_id,
            digest=self._pepper.digest(key).hex(),
            principal=key_id if principal is None else principal,
            tenant=tenant,
            role=role,
            label=label,
            created=self._clock(),
            not_before=not_before,
            expires=expires,
        )
        self._check(record)
        return NewKey(key, record)

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key for ever; one that is revoked stays so.

        Raises:
            KeyRequestError: there is no such key, or the store is read-only.
            StoreError: the store does not answer.
        """
        record = self.get(key_id)
        if record.revoked is None:
            record = replace(record, revoked=self._clock())
            self._store.put(record)
            self._note("key.revoked", record)
        return record

    def rotate(self, key_id: str, overlap: float = DEFAULT_OVERLAP) -> NewKey:
        """Make a key that replaces another one; both count for `overlap` seconds.

        Raises:
            KeyRequestError: there is no such key, it does not count any more or is revoked meanwhile, or the
                store is read-only.
            StoreError: the store does not answer.
        """
        old, now = self.get(key_id), self._clock()
        if old.state(now) in ("revoked", "expired"):
            raise KeyRequestError(f"key {key_id} is {old.state(now)}; create a new one", "key")
        if not 0 <= overlap < LATEST - now:
            message = f"overlap: {overlap!r} is not a number of seconds from 0 to the year 9998"
            raise KeyRequestError(message, "overlap")
        new_id, key = make_key()
        digest = self._pepper.digest(key).hex()
        new = replace(old, id=new_id, digest=digest, created=now, last_used=None)
        ends = now + overlap
        old = replace(old, expires=ends if old.expires is None else min(ends, old.expires))
        self._store.add(new, replaced=old)
        self._note("key.rotated", new, replaces=key_id)
        return NewKey(key, new)

    def get(self, key_id: str) -> KeyRecord:
        """Return the record of a key.

        Raises:
            KeyRequestError: there is none of that id.
        """
        record = self._store.get(key_id) if KEY_ID.match(key_id) else None
        if record is None:
            raise KeyRequestError(f"there is no key with the id {key_id[:64]!r}", "key", missing=True)
        return record

    def list(self, tenant: str | None = None) -> list[KeyRecord]:
        """Return all records, or those of one tenant, the oldest first."""
        records = self._store.all()
        return sorted(
            (record for record in records if tenant is None or record.tenant == tenant),
            key=lambda record: (record.created, record.id),
        )

    def _check(self, record: Any) -> None:
        for field, value in (("tenant", record.tenant), ("principal", record.principal)):
            if not isinstance(value, str) or not NAME.match(value):
                raise KeyRequestError(f"{field}: {value!r:.80} is not allowed; give {NAME_RULE}", field)
        if not isinstance(record.role, str) or self._settings.role(record.role) is None:
            known = ", ".join(self._settings.role_names())
            raise KeyRequestError(f"role: {record.role!r:.80} is not known; allowed are {known}", "role")
        if not isinstance(record.label, str) or len(record.label) > _LONGEST_LABEL:
            raise KeyRequestError(f"label: give a text of at most {_LONGEST_LABEL} characters", "label")
        if _NOT_STORABLE.search(record.label):
            raise KeyRequestError("label: give a text without NUL and without lone surrogates", "label")
        for field, moment in (("not_before", record.not_before), ("expires", record.expires)):
            number = isinstance(moment, int | float) and not isinstance(moment, bool)
            if moment is not None and not (number and 0 <= moment < LATEST):
                raise KeyRequestError(f"{field}: give a moment of the years 1970 to 9998", field)
        if record.expires is not None and record.expires <= max(record.not_before or 0, record.created):
            raise KeyRequestError("expires: give a moment to come, after not_before", "expires")

    def _note(self, event: str, record: KeyRecord, **more: Any) -> None:
        self._audit.write(
            event,
            actor=self._actor,
            key=record.id,
            principal=record.principal,
            tenant=record.tenant,
            role=record.role,
            **more,
        )
