"""Tokens of a provider: what counts, and everything that must not."""

from __future__ import annotations

import base64
import hmac
import http.client
import http.server
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from guarded_site import bearer
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_vlinders.auth import tokens
from vllm_vlinders.auth.authenticator import Authenticator
from vllm_vlinders.auth.tokens import TokenVerifier
from vllm_vlinders.errors import CredentialError
from vllm_vlinders.settings import JwtSettings

ISSUER, AUDIENCE = "https://id.example", "vllm"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ROLES = ["admin", "metrics", "readonly", "user"]


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm = (
        jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    )
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **more}


JWKS = {
    "keys": [jwk(RSA, "r", use="sig", alg="RS256"), jwk(EC, "e"), {"kty": "oct", "kid": "o", "k": "c2VjcmV0"}]
}


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a token; None leaves one out, a time span is one from now."""
    now = time.time()
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 600,
        "sub": "ann",
        "tenant": "acme",
        "role": "user",
    }
    given = {name: value for name, value in {**whole, **changes}.items() if value is not None}
    return {
        name: now + value.total_seconds() if isinstance(value, timedelta) else value
        for name, value in given.items()
    }


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r", **changes: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key, algorithm, headers)


def verifier(jwks: Any = JWKS, **changes: Any) -> TokenVerifier:
    jwt_settings = JwtSettings(
        issuer=ISSUER, audience=AUDIENCE, jwks_url="https://id.example/jwks", **changes
    )
    made = TokenVerifier(jwt_settings, ROLES, lambda _url: jwks)
    made.refresh()
    return made


def reason(made: TokenVerifier, text: str) -> str:
    with pytest.raises(CredentialError) as caught:
        made.verify(text)
    return caught.value.reason


def test_a_good_token_says_who_calls() -> None:
    made = verifier()
    for text in (token(), token(EC, "ES256", "e"), token(aud=["x", AUDIENCE])):
        for _ in range(2):  # the second time from memory
            principal = made.verify(text)
            assert (principal.name, principal.tenant, principal.role) == ("jwt:ann", "acme", "user")


def test_an_open_web_socket_ends_with_its_token(make_site: Any) -> None:
    site = make_site()
    site.access.authenticator = Authenticator((), None, verifier(leeway_seconds=0))
    until = time.time() + 10
    with site.client.websocket_connect("/v1/realtime?ask", headers=bearer(token(exp=until))) as socket:
        assert socket.receive_text() == "acme"
        socket.send_text("r1")
        assert socket.receive_text() == "in"
        time.sleep(max(0, until - time.time()) + 0.01)
        socket.send_text("r2")
        assert socket.receive_text() == "expired"


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any], secret: bytes | None = None) -> str:
    text = f"{b64(header)}.{b64(claims())}"
    signature = b"" if secret is None else hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{b64(signature)}"


def test_the_signature_cannot_be_left_out_or_made_with_what_is_public() -> None:
    made = verifier()
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for name in ("none", "None", "NONE", "", None, 5, ["RS256"]):
        assert reason(made, forged({"alg": name, "kid": "r"})).startswith(("algorithm_not_allowed", "token_"))
    assert reason(made, forged({"alg": "HS256", "kid": "r"}, pem)) == "algorithm_not_allowed"
    assert reason(made, forged({"alg": "HS256", "kid": "o"}, b"secret")) == "algorithm_not_allowed"
    assert reason(made, forged({"alg": "RS256", "kid": "o"}, b"secret")) == "unknown_signer"
    assert reason(made, forged({"alg": "RS256", "kid": "r"}, pem)) == "token_InvalidSignatureError"
    assert reason(made, forged({"alg": "ES256", "kid": "r"}, pem)) == "unknown_signer"
    own = jwk(OTHER, "mine")
    carried = jwt.encode(claims(), OTHER, "RS256", {"kid": "r", "jwk": own, "jku": "https://evil.example"})
    assert reason(made, carried) == "token_InvalidSignatureError"
    assert reason(made, token(RSA, "RS512")) == "algorithm_not_allowed"
    tampered = token().split(".")
    tampered[1] = b64(claims(role="admin"))
    assert reason(made, ".".join(tampered)) == "token_InvalidSignatureError"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": timedelta(seconds=-60)}, "expired"),
        ({"nbf": timedelta(minutes=10)}, "not_yet_valid"),
        ({"iat": timedelta(minutes=10)}, "not_yet_valid"),
        ({"exp": None}, "token_MissingRequiredClaimError"),
        ({"aud": "other"}, "token_InvalidAudienceError"),
        ({"aud": None}, "token_MissingRequiredClaimError"),
        ({"iss": "https://evil.example"}, "token_InvalidIssuerError"),
        ({"sub": None}, "no_subject"),
        ({"tenant": None}, "no_tenant"),
        ({"tenant": "a b"}, "no_tenant"),
        ({"tenant": ["acme"]}, "no_tenant"),
        ({"role": None}, "no_role"),
        ({"role": "root"}, "no_role"),
        ({"role": {"admin": 1}}, "no_role"),
    ],
)
def test_a_token_out_of_place_does_not_count(changes: Any, expected: str) -> None:
    assert reason(verifier(), token(**changes)) == expected


def test_clocks_may_differ_a_little() -> None:
    assert verifier(leeway_seconds=30).verify(token(exp=time.time() - 10)).name == "jwt:ann"
    assert reason(verifier(leeway_seconds=0), token(exp=time.time() - 10)) == "expired"


def test_claims_are_mapped() -> None:
    mapped = {
        "claims": {"principal": "client_id", "tenant": "org.name", "role": "https://x/roles"},
        "roles": {"vllm-ops": "admin", "staff": "user"},
    }
    text = token(client_id="bot", org={"name": "acme"}, **{"https://x/roles": ["unrelated", "vllm-ops"]})
    principal = verifier(**mapped).verify(text)
    assert (principal.name, principal.tenant, principal.role) == ("jwt:bot", "acme", "admin")
    defaults = verifier(default_role="readonly", default_tenant="guests").verify(
        token(tenant=None, role=None)
    )
    assert (defaults.tenant, defaults.role) == ("guests", "readonly")
    assert reason(verifier(default_role="admin"), token(role="unknown")) == "no_role"


def test_where_roles_are_mapped_no_other_value_is_one() -> None:
    made = verifier(roles={"vllm-ops": "admin", "staff": "user"}, default_role="readonly")
    for unmapped in ("admin", "user", ["admin", "metrics"]):
        assert reason(made, token(role=unmapped)) == "no_role"
    assert made.verify(token(role=["admin", "staff"])).role == "user"


def test_rotation_outages_and_rubbish_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[Any] = [JWKS]
    jwt_settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://id.example/jwks")

    def fetch(_url: str) -> Any:
        if isinstance(current[0], Exception):
            raise current[0]
        return current[0]

    made = TokenVerifier(jwt_settings, ROLES, fetch)
    assert reason(made, token()) == "unknown_signer"
    made.refresh()
    made.verify(token())
    errors = (OSError("down"), ValueError("no JSON"), http.client.IncompleteRead(b""), RecursionError())
    for trouble in (*errors, [], {"keys": 5}, {}, {"keys": [jwk(OTHER, ["r"])]}):  # type: ignore[arg-type]
        current[0] = trouble
        made.refresh()
        assert "cannot be fetched" in made.status()["jwks"]
        made.verify(token())
    current[0] = {"keys": [jwk(OTHER, "new"), {"kty": "RSA", "kid": "bad"}, "rubbish"]}
    assert reason(made, token(OTHER, kid="new")) == "unknown_signer"
    made.refresh()
    assert made.verify(token(OTHER, kid="new"))
    assert reason(made, token()) == "unknown_signer"
    assert not made.may_refresh()
    monkeypatch.setattr(tokens, "_LEAST_SECONDS_BETWEEN", 0)
    assert made.may_refresh()


SHAPED = st.tuples(st.binary(max_size=40), st.binary(max_size=40)).map(lambda p: f"{b64(p[0])}.{b64(p[1])}.x")


@settings(deadline=None)
@given(st.text(max_size=60) | SHAPED)
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert reason(VERIFIER, text)


VERIFIER = verifier()


@pytest.fixture
def provider() -> Iterator[tuple[str, list[Any]]]:
    """A provider that serves its keys over HTTP, and the keys."""
    served: list[Any] = [JWKS]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = json.dumps(served[0]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks", served
    server.shutdown()
    server.server_close()
    thread.join()


def test_tokens_open_a_site_and_new_keys_are_fetched_when_met(
    make_site: Any, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_LEAST_SECONDS_BETWEEN", 0)
    url, served = provider
    site = make_site(jwt={"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": url})
    assert site.client.get("/v1/models", headers=bearer(token())).json()["principal"] == "jwt:ann"
    served[0] = {"keys": [jwk(OTHER, "new")]}
    assert site.client.get("/v1/models", headers=bearer(token(OTHER, kid="new"))).status_code == 200
    old = site.client.get("/v1/models", headers=bearer(token()))
    assert (old.status_code, old.json()["error"]["code"]) == (401, "invalid_api_key")
    late = site.client.get("/v1/models", headers=bearer(token(OTHER, kid="new", exp=time.time() - 90)))
    assert late.json()["error"]["code"] == "expired"
