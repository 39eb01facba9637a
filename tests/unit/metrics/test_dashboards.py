"""Rules, alerts and the dashboard: checked by promtool, up to date, and about metrics that exist."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
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


def test_every_metric_is_on_the_dashboard() -> None:
    text = DASHBOARD.read_text() + "".join(rule["expr"] for rule in RULES)
    assert [family.name for family in FAMILIES if family.name not in text] == []
