"""Who sees whose usage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guarded_site import bearer

from vllm_vlinders.serving.bookkeeping import active_ledger, open_ledger
from vllm_vlinders.settings import active_settings
from vllm_vlinders.usage.entry import Amounts


@pytest.fixture
def site(make_site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    site = make_site()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    active_settings.cache_clear()
    open_ledger(active_settings())
    ledger = active_ledger()
    assert ledger is not None
    for tenant in ("acme", "beta"):
        ledger.add(tenant, "m", Amounts(1, 100, 50, 10, 0.5))
    yield site
    monkeypatch.setenv("VLINDERS_USAGE__ENABLED", "false")
    active_settings.cache_clear()
    open_ledger(active_settings())


@pytest.mark.parametrize(
    ("role", "query", "seen"),
    [
        ("user", "", {"acme"}),
        ("user", "?tenant=beta", {"acme"}),
        ("readonly", "?tenant=beta", {"acme"}),
        ("admin", "", {"acme", "beta"}),
        ("admin", "?tenant=beta", {"beta"}),
    ],
)
def test_callers_see_their_tenant_and_admins_all(site: Any, role: str, query: str, seen: set[str]) -> None:
    headers = bearer(site.key("acme", role))

    answer = site.client.get(f"/vlinders/usage{query}", headers=headers).json()
    text = site.client.get(f"/vlinders/usage{query or '?'}&format=csv", headers=headers).text

    assert {row["tenant"] for row in answer["usage"]["rows"]} == seen
    assert "subjects" in answer
    assert {line.split(",")[1] for line in text.splitlines()[1:]} == seen


def test_without_a_credential_nothing_is_seen(site: Any) -> None:
    assert site.client.get("/vlinders/usage").status_code == 401
