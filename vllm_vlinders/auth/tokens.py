"""JSON Web Tokens of an OpenID Connect provider; PyJWT does the cryptography."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from vllm_vlinders.auth.poller import Poller
from vllm_vlinders.auth.principal import NAME, Principal
from vllm_vlinders.errors import CredentialError
from vllm_vlinders.settings import JwtSettings

_FETCH_SECONDS = 5.0
_LEAST_SECONDS_BETWEEN = 10.0
_LARGEST_JWKS = 2**20
_MOST_REMEMBERED = 4096
_LONGEST_SUBJECT = 128


def fetch_jwks(url: str) -> Any:
    """Return the JSON document at `url`.

    Raises:
        OSError, ValueError, HTTPException: it cannot be had, or is none.
    """
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 -- the settings allow http and https alone
        return json.loads(answer.read(_LARGEST_JWKS))


class TokenVerifier:
    """Checks tokens against the provider's keys, which are fetched at times and remembered.

    A provider that does not answer leaves the keys as they were; with none yet, no token counts.

    Args:
        settings: issuer, audience, algorithms, claims.
        roles: the roles there are.
        fetch: returns the JSON Web Key Set at a URL.
    """

    def __init__(
        self, settings: JwtSettings, roles: list[str], fetch: Callable[[str], Any] = fetch_jwks
    ) -> None:
        self._settings, self._roles, self._fetch = settings, roles, fetch
        self._keys: dict[tuple[str | None, str], jwt.PyJWK] = {}
        self._verified: dict[bytes, tuple[Principal, float]] = {}
        self._lock = threading.Lock()
        self._tried = -_LEAST_SECONDS_BETWEEN
        self.problem: str | None = "not fetched yet"
        self._poller = Poller("vlinders-jwks", min(5.0, settings.refresh_seconds), self._refresh_if_due)

    def start(self) -> None:
        """Fetch the keys, and follow their rotation."""
        self.refresh()
        self._poller.start()

    def stop(self) -> None:
        """Cease to follow their rotation."""
        self._poller.stop()

    def may_refresh(self) -> bool:
        """Tell whether enough time has gone by for the keys to be fetched once more."""
        return time.monotonic() - self._tried >= _LEAST_SECONDS_BETWEEN

    def refresh(self) -> None:
        """Fetch the keys; a problem is noted and changes nothing."""
        with self._lock:
            self._tried = time.monotonic()
            try:
                keys = self._usable(self._fetch(self._settings.jwks_url))
            except Exception as error:  # noqa: BLE001 -- whatever a provider sends, the last good keys stay
                self.problem = f"auth.jwt.jwks_url: the keys cannot be fetched: {type(error).__name__}"
                return
            self._keys, self._verified = keys, {}
            self.problem = None if keys else "auth.jwt.jwks_url: no key there is of an allowed algorithm"

    def status(self) -> dict[str, Any]:
        """Return what operators want to know, JSON-serialisable."""
        return {"signing_keys": len({kid for kid, _ in self._keys}), "jwks": self.problem or "ok"}

    def verify(self, token: str) -> Principal:
        """Return whose `token` it is.

        Raises:
            CredentialError: it is no token, not signed by the provider, not for us, out of its time, or
                lacks a claim. ``unknown_signer``: refreshing the keys may help.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        remembered = self._verified.get(digest)
        if remembered is not None and time.time() < remembered[1]:
            return remembered[0]
        claims = self._decode(token)
        principal = self._principal(claims)
        if len(self._verified) >= _MOST_REMEMBERED:
            self._verified.clear()
        self._verified[digest] = principal, float(claims["exp"])
        return principal

    def _decode(self, token: str) -> dict[str, Any]:
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in settings.algorithms or not isinstance(kid, str | None):
                raise CredentialError("algorithm_not_allowed")
            key = self._keys.get((kid, algorithm))
            if key is None:
                raise CredentialError("unknown_signer")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise CredentialError("expired") from None
        except jwt.ImmatureSignatureError:
            raise CredentialError("not_yet_valid") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise CredentialError(f"token_{type(error).__name__}") from None
        return claims

    def _usable(self, jwks: Any) -> dict[tuple[str | None, str], jwt.PyJWK]:
        """Return the keys by id and algorithm: those of public-key algorithms that are allowed."""
        if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
            raise ValueError("no JSON Web Key Set")  # noqa: TRY004 -- as what is no JSON at all
        usable: dict[tuple[str | None, str], jwt.PyJWK] = {}
        for entry in jwks["keys"]:
            if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
                continue
            for algorithm in self._settings.algorithms:
                if entry.get("alg", algorithm) != algorithm or entry.get("kty") != _key_type(algorithm):
                    continue
                try:
                    usable[entry.get("kid"), algorithm] = jwt.PyJWK(entry, algorithm)
                except jwt.PyJWTError:
                    continue  # a curve or form that this algorithm has no use for
        return usable

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        subject = _claim(claims, settings.claims.principal)
        tenant = _first(_claim(claims, settings.claims.tenant), settings.default_tenant)
        given = _claim(claims, settings.claims.role)
        names = given if isinstance(given, list) else [given]
        texts = [name for name in names if isinstance(name, str)]
        mapped = [settings.roles.get(name) for name in texts] if settings.roles else texts
        known = [role for role in mapped if role in self._roles]
        role = known[0] if known else (settings.default_role if given is None else None)
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT:
            raise CredentialError("no_subject")
        if not isinstance(tenant, str) or not NAME.match(tenant):
            raise CredentialError("no_tenant")
        if role is None:
            raise CredentialError("no_role")
        return Principal(f"jwt:{subject}", tenant, role)

    def _refresh_if_due(self) -> None:
        wait = self._settings.refresh_seconds if self.problem is None else _FETCH_SECONDS
        if time.monotonic() - self._tried >= wait:
            self.refresh()


def _key_type(algorithm: str) -> str:
    return "RSA" if algorithm[:2] in ("RS", "PS") else "EC" if algorithm.startswith("ES") else "OKP"


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim of a dotted name, None if there is none; a name with dots may be a claim itself."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _first(value: Any, default: str | None) -> Any:
    return default if value is None else value
