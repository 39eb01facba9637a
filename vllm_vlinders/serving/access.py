"""All that guards one API server process, put together from the settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_vlinders.auth.audit import Audit
from vllm_vlinders.auth.authenticator import Authenticator
from vllm_vlinders.auth.directory import KeyDirectory
from vllm_vlinders.auth.key_office import KeyOffice
from vllm_vlinders.auth.keys import Pepper
from vllm_vlinders.auth.quota.book import Book
from vllm_vlinders.auth.quota.ledger import Ledger
from vllm_vlinders.auth.quota.shared import SharedLedger
from vllm_vlinders.auth.store import open_store
from vllm_vlinders.auth.throttle import Throttle
from vllm_vlinders.auth.tokens import TokenVerifier
from vllm_vlinders.errors import KeyRequestError, RequestError, SettingsError
from vllm_vlinders.logs import make_logger
from vllm_vlinders.metrics.access import set_store_up
from vllm_vlinders.settings import AuthSettings, QuotaSettings, Settings, active_settings, reveal

_SOME_CONTEXT = 4096


@dataclass(eq=False)
class Access:
    """The parts; `close` ends their threads and connections."""

    settings: AuthSettings
    authenticator: Authenticator
    audit: Audit
    throttle: Throttle
    pepper: Pepper | None
    directory: KeyDirectory | None
    verifier: TokenVerifier | None
    book: Book
    context: int

    def office(self, actor: str) -> KeyOffice:
        """Return what changes keys, in the name of `actor`.

        Raises:
            KeyRequestError: the settings name no store of keys.
        """
        if self.directory is None or self.pepper is None:
            raise KeyRequestError("there is no store of keys: set auth.keys", "store")
        return KeyOffice(self.directory.store, self.pepper, self.settings, self.audit, actor=actor)

    def status(self) -> dict[str, Any]:
        """Return what operators want to know, JSON-serialisable."""
        parts = (self.directory, self.verifier)
        status = {name: value for part in parts if part is not None for name, value in part.status().items()}
        return {**status, "quotas": self.book.problem or "ok"}

    def close(self) -> None:
        """End the threads, and note what is still to be noted."""
        if self.directory is not None:
            self.directory.stop()
        if self.verifier is not None:
            self.verifier.stop()
        self.book.shut()


def open_access(settings: Settings, api_keys: Sequence[str], context: int = _SOME_CONTEXT) -> Access | None:
    """Return the guard that `settings` ask for, its threads running; None where they ask for none.

    Args:
        settings: the whole tree.
        api_keys: the keys of ``--api-key``.
        context: the most tokens of prompt and answer that the model takes.

    Raises:
        StartupError: a secret, the store or the audit log cannot be had, or nobody could ever come in.
    """
    auth = settings.auth
    if auth is None:
        return None
    if auth.keys is None and auth.jwt is None and not api_keys:
        raise SettingsError(
            "auth: no credential could ever be right; set auth.keys or auth.jwt, or give --api-key"
        )
    _check_names(auth)
    audit = Audit(auth.audit)
    pepper = None if auth.keys is None else Pepper(reveal(auth.keys.pepper, "auth.keys.pepper"))
    verifier = None if auth.jwt is None else TokenVerifier(auth.jwt, auth.role_names())
    directory = None
    if auth.keys is not None and pepper is not None:
        tell = _teller(settings)
        directory = KeyDirectory(open_store(auth.keys), pepper, auth.keys.poll_seconds, tell)
        tell(None)
        directory.start()
    if verifier is not None:
        verifier.start()
    return Access(
        settings=auth,
        authenticator=Authenticator(api_keys, directory, verifier),
        audit=audit,
        throttle=Throttle(auth.brute_force),
        pepper=pepper,
        directory=directory,
        verifier=verifier,
        book=_open_book(settings.quotas),
        context=context,
    )


def _open_book(quotas: QuotaSettings) -> Book:
    """Open the ledgers: files that all API server processes of this server open."""
    folder = os.environ.get("VLINDERS_RUN_DIR")
    if not folder:
        raise SettingsError("quotas: there is no place for the counts: make the temporary directory writable")
    url = reveal(quotas.backend, "quotas.backend")
    windows = Ledger(quotas.state or Path(folder) / "quotas")
    slots = Ledger(Path(folder) / "requests")
    return Book(quotas, windows, slots, None if url == "local" else SharedLedger(url))


def _check_names(auth: AuthSettings) -> None:
    named = [] if auth.jwt is None else [auth.jwt.default_role, *auth.jwt.roles.values()]
    for role in named:
        if role is not None and auth.role(role) is None:
            known = ", ".join(auth.role_names())
            raise SettingsError(f"auth.jwt: the role {role!r} is not known; allowed are {known}")


def _teller(settings: Settings) -> Any:
    log = make_logger(settings.logging)

    def tell(problem: str | None) -> None:
        set_store_up(problem is None)
        if problem is not None:
            log.error("key store", problem=problem, effect="the keys last read go on to count")

    return tell


_access: Access | None = None


def install(access: Access | None) -> None:
    """Make `access` the guard of this process; the one before is closed."""
    global _access  # noqa: PLW0603 -- one per process, by nature
    if _access is not None:
        _access.close()
    _access = access


def active_access() -> Access | None:
    """Return the guard of this process; None where the settings ask for none.

    Raises:
        RequestError: they ask for one, and it is not there: nothing may pass (503).
    """
    if _access is None and active_settings().auth is not None:
        message = "the server is not ready: its authentication has not been set up"
        raise RequestError(message, status=503, kind="server_error", code="not_ready")
    return _access
