from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # for guarded_site.py

from guarded_site import PEPPER, Site

from vllm_vlinders.serving.access import active_access, install, open_access
from vllm_vlinders.settings import active_settings


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    """Make the site of these settings; those of ``auth`` that are not given are for a store in SQLite."""
    monkeypatch.setenv("TEST_PEPPER", PEPPER)
    monkeypatch.setenv("VLINDERS_RUN_DIR", str(tmp_path))

    def make(*, api_keys: tuple[str, ...] = (), quotas: Any = None, **auth: Any) -> Site:
        keys = {"store": f"sqlite:///{tmp_path}/keys.db", "pepper": "env:TEST_PEPPER", "poll_seconds": 0.1}
        audit = {"path": str(tmp_path / "audit.jsonl")}
        brute_force = {"max_delay_seconds": 0}
        tree = {"auth": {"keys": keys, "audit": audit, "brute_force": brute_force, **auth}}
        path = tmp_path / "vlinders.yaml"
        path.write_text(yaml.safe_dump({**tree, "quotas": quotas or {}}))
        monkeypatch.setenv("VLINDERS_CONFIG", str(path))
        active_settings.cache_clear()
        install(open_access(active_settings(), api_keys))
        access = active_access()
        assert access is not None
        return Site(access)

    yield make
    install(None)
