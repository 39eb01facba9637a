"""docker/prometheus and docker/grafana: what Prometheus answers to their queries."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.utils import floatToGoString

from vllm_vlinders.metrics.catalogue import QUEUE
from vllm_vlinders.metrics.requests import Recorder, Times, Tokens, Who
from vllm_vlinders.settings import MetricsSettings, QuotaSettings

FOLDER = Path(__file__).resolve().parents[2] / "docker"
RULES = FOLDER / "prometheus" / "rules.yml"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "vlinders.json"


def ask(folder: Path, series: dict[str, str], query: str, samples: list[dict[str, Any]]) -> None:
    """Let promtool ask a query after 20 minutes of `series`, with our rules, and compare the answer."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "20m", "exp_samples": samples}],
    }
    path = folder / "test.yml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_tenant_s_tokens_count_once_though_some_were_cached(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    (target,) = (
        target
        for panel in panels
        if panel["title"] == "Tokens per second"
        for target in panel["targets"]
        if target["legendFormat"] == "{{tenant}}"
    )
    query = target["expr"].replace("$tenant", ".*").replace("$__rate_interval", "5m")
    minutes = {"prompt": 600, "cached": 300, "completion": 60}
    series = {
        f'vlinders_tokens_total{{tenant="a",model="m",kind="{kind}"}}': f"0+{number}x30"
        for kind, number in minutes.items()
    }

    ask(tmp_path, series, query, [{"labels": '{tenant="a"}', "value": 11}])


@pytest.mark.parametrize("aging", [30, 150, 1500, 1_000_000])
def test_starvation_is_told_of_whatever_the_aging_is(aging: int, tmp_path: Path) -> None:
    """No quantile of a histogram is beyond its last bound, however long requests wait."""
    series = {f'{QUEUE.name}_bucket{{tenant="a",le="{bound}"}}': "0x30" for bound in QUEUE.buckets}
    series |= {
        f'{QUEUE.name}_bucket{{tenant="a",le="+Inf"}}': "0+10x30",
        "vlinders_aging_seconds": f"{aging}x30",
    }
    query = 'count(ALERTS{alertname="StarvationNear",alertstate="firing"})'

    ask(tmp_path, series, query, [{"labels": "{}", "value": 1}])


def test_a_long_wait_counts_in_its_bucket() -> None:
    recorder = Recorder(MetricsSettings(), QuotaSettings(), [], None)

    recorder.begin()
    recorder.end(Who("waits"), 200, Tokens(), Times(10_000, queued=[500, 1000, 3000, 7000, 10_000]))

    place = {"tenant": "waits", "band": "none"}
    bounds = [floatToGoString(bound) for bound in (*QUEUE.buckets, float("inf"))]
    counts = [
        REGISTRY.get_sample_value(f"{QUEUE.name}_bucket", {**place, "le": bound}) for bound in bounds[-6:]
    ]
    assert counts == [0, 1, 2, 3, 4, 5]
