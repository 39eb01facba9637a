"""Rules, alerts and the dashboard: checked by promtool, up to date, and about metrics that exist."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from vllm_vlinders.metrics.catalogue import FAMILIES

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "docker" / "prometheus"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "vlinders.json"
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    """Yield the address of an HTTP server that answers every GET with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"no such")

        def log_message(self, *_: object) -> None:
            """Keep pytest's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_prometheus_of_make_scrapes_the_live_server_alone() -> None:
    configuration = runpy.run_path(str(ROOT / "scripts" / "prometheus.py"))["configuration"]

    (job,) = configuration("127.0.0.1:1", "a key", "1s")["scrape_configs"]

    assert job == {
        "job_name": "vllm",
        "static_configs": [{"targets": ["127.0.0.1:1"]}],
        "authorization": {"credentials": "a key"},
    }


def test_every_alert_is_tested_to_fire() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if "exp_alerts" in case}
    assert fired == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_a_summary_and_its_paragraph(alert: dict[str, dict[str, str]]) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)

    assert alert["annotations"]["summary"]
    assert anchor in {heading.lower() for heading in headings}
    assert anchor == str(alert["alert"]).lower()


def test_the_dashboard_is_what_its_script_writes() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_dashboard.py"))["text"]()
    assert DASHBOARD.read_text(encoding="utf-8") == made, "run `make dashboard`"


def test_queries_ask_for_metrics_and_labels_that_exist() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    texts += [rule["expr"] for rule in RULES]
    suffixes = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    known = {family.name + suffix: family for family in FAMILIES for suffix in suffixes[family.kind]}
    for text in texts:
        for name, matchers in re.findall(r"\b(vlinders_\w+)(?:\{([^}]*)\})?", text):
            assert name in known, text
            for label in re.findall(r"(\w+)(?:=~?|!=)", matchers):
                assert label in known[name].labels, text


@pytest.mark.parametrize("status", [503, 400])
def test_a_prometheus_that_starts_is_asked_again_and_one_that_refuses_ends_the_check(status: int) -> None:
    ask = runpy.run_path(str(ROOT / "scripts" / "prometheus.py"))["ask"]
    with answering(status) as address:
        if status == 503:
            assert ask(address, "up") == []
        else:
            with pytest.raises(SystemExit, match="up: no such"):
                ask(address, "up")


def test_every_metric_is_on_the_dashboard() -> None:
    text = DASHBOARD.read_text() + "".join(rule["expr"] for rule in RULES)
    assert [family.name for family in FAMILIES if family.name not in text] == []
