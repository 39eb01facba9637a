"""The section ``auth``: who may call, and what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.logging import RotationSettings
from vllm_vlinders.settings.secret import SecretReference, UrlOrReference

JwtAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Signatures with public keys. ``none`` and the HMAC ones are not to be had."""
MODEL_PATHS = (
    "/v1/models",
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/*",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v2/embed",
    "/v1/score",
    "/score",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/classify",
    "/pooling",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/realtime",
    "/tokenize",
    "/detokenize",
    "/invocations",
)
"""What ``user`` may call: the endpoints that run the model, and the list of models."""
_LOOKING = ("/v1/models", "/version", "/load", "/metrics", "/health", "/ping")
_OWN_USAGE = "/vlinders/usage"


class KeySettings(Section):
    """Where API keys are kept."""

    store: UrlOrReference = Field(
        description="sqlite:////absolute/path, postgresql+psycopg://user@host/database, yaml:///path "
        "(read only), or a reference to such a URL"
    )
    pepper: SecretReference = Field(
        description="the server's secret that key hashes are made with; at least 16 characters"
    )
    poll_seconds: float = Field(
        default=1, ge=0.1, le=2, description="how often each process looks for changes of the store"
    )

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if value.startswith(("sqlite:///", "postgresql", "yaml:///", "env:", "file:")):
            return value
        message = "allowed are sqlite:///…, postgresql+psycopg://…, yaml:///…, env:NAME and file:/path"
        raise ValueError(message)


class ClaimNames(Section):
    """Which claims of a token say what; dots reach into objects, as in ``realm_access.roles``."""

    principal: str = "sub"
    tenant: str = "tenant"
    role: str = "role"


class JwtSettings(Section):
    """Which JSON Web Tokens are accepted, as OpenID Connect providers issue them."""

    issuer: str
    audience: str
    jwks_url: str = Field(pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])")
    algorithms: tuple[JwtAlgorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    leeway_seconds: float = Field(default=30, ge=0, le=300, description="allowed difference of clocks")
    refresh_seconds: float = Field(default=300, ge=1, description="how long fetched keys are used")
    claims: ClaimNames = ClaimNames()
    roles: dict[str, str] = Field(
        default={},
        description="from a value of the role claim to a role here; where there are any, no other value counts",
    )
    default_role: str | None = Field(
        default=None, description="the role of tokens without a role claim; unset: they are refused"
    )
    default_tenant: str | None = Field(
        default=None, description="the tenant of tokens without a tenant claim; unset: they are refused"
    )


class RolePriority(Section):
    """The priorities of a role's requests."""

    default: int = Field(default=0, ge=0, le=1000, description="where a request gives none")
    cap: int = Field(default=1000, ge=0, le=1000, description="the highest; what is above counts as this")

    @model_validator(mode="after")
    def _default_within_cap(self) -> Self:
        if self.default > self.cap:
            message = f"default {self.default} is above cap {self.cap}"
            raise ValueError(message)
        return self


class RoleSettings(Section):
    """What a role may do."""

    models: tuple[str, ...] = Field(default=("*",), description="names of models, * and ? as in a shell")
    endpoints: tuple[str, ...] = Field(
        default=(*MODEL_PATHS, _OWN_USAGE), description="paths, * and ? as in a shell"
    )
    priority: RolePriority = RolePriority()
    session: bool = Field(default=True, description="whether X-Session-Id counts")
    rank: bool = Field(default=False, description="whether X-data-parallel-rank counts")
    load_lora: bool = Field(default=False, description="whether adapters may be loaded and unloaded")
    management: bool = Field(default=False, description="whether /vlinders/* may be used")
    max_n: int | None = Field(default=None, ge=1, description="most answers to one prompt")
    max_tokens: int | None = Field(default=None, ge=1, description="most tokens of one answer")
    max_context: int | None = Field(default=None, ge=1, description="most tokens of prompt and answer")


BUILT_IN_ROLES = {
    "admin": RoleSettings(endpoints=("*",), rank=True, load_lora=True, management=True),
    "user": RoleSettings(),
    "readonly": RoleSettings(endpoints=(*_LOOKING, _OWN_USAGE), session=False),
    "metrics": RoleSettings(models=(), endpoints=("/metrics",), session=False),
}


class AuditSettings(Section):
    """Where the audit log goes."""

    path: Path | None = Field(default=None, description="a file, appended to; unset: standard error")
    enabled: bool = True
    rotation: RotationSettings | None = Field(
        default=None, description="when the file is put aside; unset: never, so that nothing is lost"
    )


class BruteForceSettings(Section):
    """How repeated failures from one address are slowed, in each API server process."""

    free_failures: int = Field(default=5, ge=0, description="failures in a minute that are not slowed")
    max_delay_seconds: float = Field(default=5, ge=0, le=60, description="the longest that one is slowed")


class AuthSettings(Section):
    """Who may call. Where this section is given, every route needs a credential."""

    keys: KeySettings | None = None
    jwt: JwtSettings | None = None
    open_paths: tuple[str, ...] = Field(
        default=("/health", "/ping"), description="exact paths that need no credential"
    )
    roles: dict[str, RoleSettings] = Field(default={}, description="more roles, or others in their place")
    max_body_bytes: int = Field(default=64 * 2**20, ge=1, description="the largest body of a request")
    max_header_bytes: int = Field(default=32 * 2**10, ge=256, description="all headers of a request")
    audit: AuditSettings = AuditSettings()
    brute_force: BruteForceSettings = BruteForceSettings()

    @field_validator("open_paths")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if not path.startswith("/") or set(path) & set("*?[]"):
                message = f"{path!r} is not an exact path such as /health"
                raise ValueError(message)
        return value

    def role(self, name: str) -> RoleSettings | None:
        """Return the role of that name, None if there is none."""
        return self.roles.get(name) or BUILT_IN_ROLES.get(name)

    def role_names(self) -> list[str]:
        """Return the names of all roles, sorted."""
        return sorted({*self.roles, *BUILT_IN_ROLES})
