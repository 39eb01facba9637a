"""From what a caller shows to who it is."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence

from vllm_vlinders.auth.directory import KeyDirectory
from vllm_vlinders.auth.keys import PREFIX
from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.auth.tokens import TokenVerifier
from vllm_vlinders.errors import CredentialError

_LONGEST = 16 * 1024
_COMMAND_LINE_TENANT = "default"


def credential(authorization: Sequence[str], api_key: Sequence[str]) -> str:
    """Return the credential that a request shows.

    Args:
        authorization: the values of its headers ``Authorization``.
        api_key: the values of its headers ``X-API-Key``.

    Raises:
        CredentialError: there is none, it is no bearer token, or there are several.
    """
    shown = [_bearer(value) for value in authorization] + [value.strip() for value in api_key]
    if not shown:
        raise CredentialError("missing")
    if len(set(shown)) > 1:
        raise CredentialError("ambiguous")
    if not shown[0] or len(shown[0]) > _LONGEST:
        raise CredentialError("malformed")
    return shown[0]


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Authenticator:
    """Knows every kind of credential: keys of the command line, API keys, tokens.

    Args:
        api_keys: those of ``--api-key``; their holders are admins.
        directory: the API keys of the store, or None.
        verifier: checks tokens, or None.
    """

    def __init__(
        self, api_keys: Sequence[str], directory: KeyDirectory | None, verifier: TokenVerifier | None
    ) -> None:
        self._command_line = [_sha256(key) for key in api_keys]
        self._directory = directory
        self._verifier = verifier

    async def authenticate(self, shown: str) -> Principal:
        """As `verify`, after the provider's keys have been fetched anew where that may help.

        Raises:
            CredentialError: it does not count.
        """
        try:
            return self.verify(shown)
        except CredentialError as error:
            verifier = self._verifier
            if error.reason != "unknown_signer" or verifier is None or not verifier.may_refresh():
                raise
        await asyncio.to_thread(verifier.refresh)
        return self.verify(shown)

    def verify(self, shown: str) -> Principal:
        """Return who shows the credential `shown`, as far as is known here.

        Raises:
            CredentialError: it does not count.
        """
        principal = self._of_command_line(shown)
        if principal is not None:
            return principal
        if shown.startswith(PREFIX) and self._directory is not None:
            return self._directory.index.authenticate(shown, time.time())
        if self._verifier is not None:
            return self._verifier.verify(shown)
        raise CredentialError("unknown")

    def _of_command_line(self, shown: str) -> Principal | None:
        if not self._command_line:
            return None
        digest = _sha256(shown)
        holders = [n for n, key in enumerate(self._command_line, 1) if hmac.compare_digest(digest, key)]
        return Principal(f"api-key-{holders[0]}", _COMMAND_LINE_TENANT, "admin") if holders else None


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
