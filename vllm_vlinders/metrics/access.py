"""What the guard of the API server counts."""

from __future__ import annotations

from vllm_vlinders.metrics.catalogue import AUTH, QUOTA_REFUSALS, QUOTA_TOKENS, STORE_UP
from vllm_vlinders.metrics.families import counter, gauge


def count_request(outcome: str) -> None:
    """Count one request; `outcome` is one of few words."""
    counter(AUTH).labels(outcome).inc()


def set_store_up(up: bool) -> None:
    """Note whether the key store answers."""
    gauge(STORE_UP).set(1 if up else 0)


def count_quota_tokens(tenant: str, tokens: int) -> None:
    """Count what a request has used; `tenant` is one of a bounded number of labels."""
    counter(QUOTA_TOKENS).labels(tenant).inc(tokens)


def count_quota_refusal(tenant: str, limit: str) -> None:
    """Count a request that found `limit` used up; `tenant` is one of a bounded number of labels."""
    counter(QUOTA_REFUSALS).labels(tenant, limit).inc()
