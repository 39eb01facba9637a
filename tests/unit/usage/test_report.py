"""What the ledger says: on the command line, over HTTP, as table, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from vllm_vlinders.cli import main
from vllm_vlinders.serving.bookkeeping import active_ledger, open_ledger
from vllm_vlinders.serving.management import management_routes
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.settings import UsageSettings, active_settings, load_settings, state_folder
from vllm_vlinders.usage.entry import Amounts, Key
from vllm_vlinders.usage.journal import Counted
from vllm_vlinders.usage.report import Days, parse_days, report

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("first", "last", "month", "days"),
    [
        (None, None, None, ("2026-11-01", "2026-11-21")),
        ("2026-11-03", None, None, ("2026-11-03", "2026-11-21")),
        (None, "2026-10-09", None, ("2026-10-01", "2026-10-09")),
        (None, None, "2026-02", ("2026-02-01", "2026-02-28")),
    ],
)
def test_days(first: str | None, last: str | None, month: str | None, days: tuple[str, str]) -> None:
    assert parse_days(first, last, month, NOW) == days


@pytest.mark.parametrize(
    ("first", "last", "month"),
    [
        ("yesterday", None, None),
        (None, "2026-02-30", None),
        (None, None, "2026-13"),
        (None, None, "2026"),
        ("2026-11-01", None, "2026-11"),
        ("2026-11-09", "2026-11-08", None),
    ],
)
def test_what_is_no_day_is_refused(first: str | None, last: str | None, month: str | None) -> None:
    with pytest.raises(ValueError, match="2026-11"):
        parse_days(first, last, month, NOW)


def test_gpus_cost_what_their_hours_do() -> None:
    found = {Key("2026-11-20", "a", "m"): Amounts(3, 30_000, 0, 10_000, 2.0)}
    settings = UsageSettings(gpu_hour=2.5, gpus=4)

    summary = report(found, Counted(), Days("2026-11-20", "2026-11-30"), settings, NOW)

    assert summary["gpus"] == {"hours": 144.0, "cost": 360.0, "cost_per_1k_tokens": 9.0}
    assert "gpus" not in report(found, Counted(), Days("2026-11-20", "2026-11-30"), UsageSettings(), NOW)
    assert (
        report(found, Counted(), Days("2026-11-20", "9999-12-31"), settings, NOW)["gpus"] == summary["gpus"]
    )


def test_who_asks_for_one_tenant_is_not_shown_what_the_gpus_cost_for_all(
    ledger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gpus" in client().get("/vlinders/usage").json()["usage"]
    assert "gpus" not in client().get("/vlinders/usage?tenant=acme").json()["usage"]
    assert "gpus" not in json.loads(run(capsys, "--json", "--tenant", "acme"))


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ledger with the usage of two tenants, in the file that is the default."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("VLINDERS_USAGE__GPU_HOUR", "2")
    active_settings.cache_clear()
    open_ledger(load_settings())
    kept = active_ledger()
    assert kept is not None
    for tenant, completion in (("acme", 10), ("beta", 20), ("acme", 5)):
        kept.add(tenant, "m", Amounts(1, 100, 50, completion, 0.5))
    yield
    monkeypatch.setenv("VLINDERS_USAGE__ENABLED", "false")
    open_ledger(load_settings())


def test_a_journal_that_cannot_be_written_is_no_store_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("vllm_vlinders.usage.ledger.Journal", Mock(side_effect=PermissionError(13, "denied")))
    open_ledger(load_settings())
    kept = active_ledger()
    assert kept is not None
    kept.add("acme", "m", Amounts(1, 100, 50, 10, 0.5))

    assert kept.flush()
    assert REGISTRY.get_sample_value("vlinders_usage_up") == 1
    monkeypatch.setenv("VLINDERS_USAGE__ENABLED", "false")
    open_ledger(load_settings())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["usage", *arguments]) == 0
    return capsys.readouterr().out


def test_the_command_prints_table_csv_and_json(ledger: None, capsys: pytest.CaptureFixture[str]) -> None:
    kept = active_ledger()
    assert kept is not None
    kept.flush()

    summary = json.loads(run(capsys, "--json"))
    assert summary["total"] == {
        "requests": 3,
        "prompt_tokens": 300,
        "cached_tokens": 150,
        "completion_tokens": 35,
        "cost": 1.5,
    }
    assert [(row["tenant"], row["completion_tokens"]) for row in summary["rows"]] == [
        ("acme", 15),
        ("beta", 20),
    ]
    assert summary["gpus"]["cost"] == pytest.approx(summary["gpus"]["hours"] * 2, rel=1e-3, abs=2e-3)
    lines = list(csv.DictReader(io.StringIO(run(capsys, "--csv", "--tenant", "beta"))))
    assert [(line["tenant"], line["cost"]) for line in lines] == [("beta", "0.5")]
    table = run(capsys)
    assert [line.split()[-1] for line in table.splitlines()[1:4]] == ["1.0000", "0.5000", "1.5000"]
    assert "per 1k tokens" in table
    assert main(["usage", "--month", "November"]) == 2


def client() -> TestClient:
    return TestClient(
        Starlette(routes=management_routes(dict, ()), middleware=[Middleware(Pipeline)]),
        raise_server_exceptions=False,
    )


def test_the_endpoint_answers_what_was_just_counted(ledger: None) -> None:
    def get(query: str = "") -> Any:
        return client().get(f"/vlinders/usage{query}")

    assert get().json()["usage"]["total"]["requests"] == 3
    assert {row["tenant"] for row in get("?tenant=beta").json()["usage"]["rows"]} == {"beta"}
    assert get("?month=2020-01").json()["usage"]["rows"] == []
    text = get("?format=csv")
    assert text.headers["content-type"].startswith("text/csv")
    assert len(text.text.splitlines()) == 3
    for query in ("?format=xml", "?month=2020", "?from=x"):
        assert get(query).status_code == 400


def test_without_a_ledger_there_is_nothing_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINDERS_USAGE__ENABLED", "false")
    open_ledger(load_settings())

    assert client().get("/vlinders/usage").json()["error"]["code"] == "no_ledger"


def test_the_state_folder_is_found_for_every_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert state_folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "vllm-vlinders"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder({}) == tmp_path / ".local" / "state" / "vllm-vlinders"

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert state_folder({}).name == "vllm-vlinders"
