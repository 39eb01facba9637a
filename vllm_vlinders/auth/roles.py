"""What a role allows: pure decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from vllm_vlinders.auth.keys import redact
from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.errors import RequestError
from vllm_vlinders.settings import AuthSettings, RoleSettings

LORA_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/*")
OWN_USAGE = "/vlinders/usage"
MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MANAGEMENT = "/vlinders/*"
_ANSWERS_FIELDS = ("n", "best_of")
_NUMBER = TypeAdapter(int)
_LONGEST_REMEMBERED = 256


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Tell whether one of `patterns` matches `name`; upper and lower case differ."""
    # Clients choose names: long ones are not remembered, so that memory has a bound.
    return (_remembered if len(name) <= _LONGEST_REMEMBERED else _matches)(patterns, name)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


_remembered = lru_cache(maxsize=8192)(_matches)


def models_of(auth: AuthSettings, name: str) -> Callable[[str], bool]:
    """Return what tells whether the role of that name allows a model.

    Raises:
        LookupError: there is no such role.
    """
    role = auth.role(name)
    if role is None:
        raise LookupError(f"there is no role {name[:80]!r}; there are {', '.join(auth.role_names())}")
    return lambda model: matches(role.models, model)


def read_sizes(payload: Mapping[str, Any]) -> dict[str, int]:
    """Return how many answers a request body asks for and how long, read as vLLM reads numbers: "5" is 5.

    Raises:
        RequestError: a field is no whole number (400).
    """
    sizes = {}
    for field in (*_ANSWERS_FIELDS, *MAX_TOKENS_FIELDS):
        if payload.get(field) is None:
            continue
        try:
            sizes[field] = _NUMBER.validate_python(payload[field])
        except ValidationError:
            message = f"{field}: not a whole number; give an integer, or leave it out"
            raise RequestError(message, param=field, code="invalid_size") from None
    return sizes


class Grant(NamedTuple):
    """A principal, and what its role allows."""

    principal: Principal
    role: RoleSettings

    @property
    def has_ceilings(self) -> bool:
        """Whether the role limits how many answers there are, or how long they are."""
        role = self.role
        return not (role.max_n is None and role.max_tokens is None and role.max_context is None)

    def check_path(self, path: str) -> None:
        """Check the right to call `path`, as the router sees it.

        Raises:
            RequestError: with status 403.
        """
        role = self.role
        allowed = matches(role.endpoints, path)
        if matches(LORA_PATHS, path):
            allowed = allowed and role.load_lora
        if path == "/vlinders" or (matches((_MANAGEMENT,), path) and path != OWN_USAGE):
            allowed = allowed and role.management
        if not allowed:
            raise self._forbidden(f"may not call {redact(path)[:200]}", "path_not_allowed", None)

    def may_use(self, model: str) -> bool:
        """Tell whether the role allows `model`."""
        return matches(self.role.models, model)

    def check_model(self, model: str) -> None:
        """Check the right to use `model`.

        Raises:
            RequestError: with status 403.
        """
        if not self.may_use(model):
            raise self._forbidden(
                f"may not use the model {redact(model)[:200]!r}", "model_not_allowed", "model"
            )

    def check_sizes(self, payload: Mapping[str, Any]) -> None:
        """Check what a request body asks for against the ceilings of the role.

        Raises:
            RequestError: with status 403.
        """
        role = self.role
        for fields, most in (
            (_ANSWERS_FIELDS, role.max_n),
            (MAX_TOKENS_FIELDS, role.max_tokens),
            (MAX_TOKENS_FIELDS, role.max_context),
        ):
            for field in fields:
                asked = payload.get(field)
                if most is not None and isinstance(asked, int | float) and asked > most:
                    raise self._forbidden(f"may ask for {field} up to {most}", "above_ceiling", field)

    def check_context(self, tokens: int) -> None:
        """Check the length of a prompt.

        Raises:
            RequestError: with status 403.
        """
        most = self.role.max_context
        if most is not None and tokens >= most:
            raise self._forbidden(
                f"may use {most} tokens for prompt and answer together, and the prompt has {tokens}",
                "above_ceiling",
                None,
            )

    def _forbidden(self, what: str, code: str, param: str | None) -> RequestError:
        message = f"the role {self.principal.role!r} {what}"
        return RequestError(message, status=403, kind="permission_error", param=param, code=code)
