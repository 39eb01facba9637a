"""Every exception of the project. A leaf: it imports nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping


class VlindersError(Exception):
    """The base of all exceptions raised by vllm-vlinders."""


class StartupError(VlindersError):
    """The server must not start. The message says what, where, what is allowed, what to do."""


class SettingsError(StartupError):
    """A setting is unknown or has a value that is not allowed."""


class DeclarationError(StartupError):
    """A patch class is declared wrongly: a field is missing or contradicts another."""


class DiscoveryError(StartupError):
    """``VLLM_CUSTOM_PATCHES`` names a module or a feature that does not exist."""


class UnsupportedVersionError(StartupError):
    """The installed vLLM is outside what a required patch, or its package, supports."""


class DriftError(StartupError):
    """The source a patch replaces or relies on is not the source it was written for."""


class ApplyError(StartupError):
    """A patch could not be put in place."""


class FrontEndError(StartupError):
    """The server would use a front end that the patches of the API server cannot reach."""


class StoreError(StartupError):
    """A database cannot be used. The key store: at the start no start, later its last good state counts."""


class CredentialError(VlindersError):
    """A credential does not count.

    Attributes:
        reason: one word, for the audit log and metrics.
        key_id: the public part of the key that was given, or None.
    """

    def __init__(self, reason: str, key_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key_id = key_id


class KeyRequestError(VlindersError):
    """Somebody asks for a key that cannot be made or changed so.

    Attributes:
        param: what is at fault.
        missing: whether it is a key that does not exist.
    """

    def __init__(self, message: str, param: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.param = param
        self.missing = missing


class EncoderError(VlindersError):
    """An encoder gave no vectors: its server cannot be reached or answers something else."""


class CompatError(VlindersError):
    """A vLLM release cannot be examined: unknown, out of reach, or broken. One line, for a person."""


class RequestError(VlindersError):
    """A request is refused with an HTTP error of OpenAI's shape.

    Attributes:
        status: the HTTP status, 400 to 599.
        kind: OpenAI's ``error.type``.
        param: the header or body field at fault, or None.
        code: OpenAI's ``error.code``, or None.
        headers: sent with the answer, as ``Retry-After``.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class InvalidPriorityError(RequestError, ValueError):
    """A priority is not an integer of 0 to 1000. A ValueError too, for callers of vLLM's Python API."""


class InvalidRequirementsError(RequestError, ValueError):
    """Requirements on a model are not of the words allowed. A ValueError too, for callers from Python."""
