"""What the guard of the API server counts."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge


@cache
def _requests() -> Counter:
    """Made on first use: prometheus_client must be imported after vLLM set its multiprocess directory."""
    return Counter(
        "vlinders_auth_requests",
        "Requests that needed a credential, by what became of them: allowed, or the reason of a refusal.",
        ["outcome"],
    )


@cache
def _store_up() -> Gauge:
    return Gauge(
        "vlinders_auth_store_up",
        "1 while every API server process can read the key store, 0 while one relies on what it last read.",
        multiprocess_mode="livemin",
    )


@cache
def _tokens() -> Counter:
    return Counter("vlinders_quota_tokens", "Tokens charged to quotas, by tenant.", ["tenant"])


def count_request(outcome: str) -> None:
    """Count one request; `outcome` is one of few words."""
    _requests().labels(outcome).inc()


def set_store_up(up: bool) -> None:
    """Note whether the key store answers."""
    _store_up().set(1 if up else 0)


def count_tokens(tenant: str, tokens: int) -> None:
    """Count what a request has used."""
    _tokens().labels(tenant).inc(tokens)
