from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vllm_vlinders.serving.router import install_routing

sys.path.insert(0, str(Path(__file__).parent))  # for elsewhere.py and gateway.py

from elsewhere import Elsewhere
from gateway import QUICK, Gateway, Make


@pytest.fixture
def elsewhere() -> Iterator[Make]:
    made: list[Elsewhere] = []

    def make(mode: str | int = "ok") -> Elsewhere:
        made.append(Elsewhere(mode))
        return made[-1]

    yield make
    for each in made:
        each.served.stop()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("VLINDERS_RUN_DIR", str(tmp_path))
    made: list[Gateway] = []

    def make(*urls: str, models: dict[str, Any] | None = None, **section: Any) -> Gateway:
        upstream = {
            "urls": list(urls),
            "key": "env:TEST_UPSTREAM_KEY",
            **QUICK,
            **section.pop("upstream", {}),
        }
        known = {"big": {"upstream": upstream}, **(models or {})}
        made.append(Gateway(models=known, **section))
        return made[-1]

    monkeypatch.setenv("TEST_UPSTREAM_KEY", "the key of the upstream")
    yield make
    for each in made:
        each.stop()
    install_routing(None)
