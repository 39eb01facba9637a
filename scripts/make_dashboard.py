"""Write docker/grafana/dashboards/vlinders.json: rows of panels, each a title, a unit and queries.

Grafana's JSON repeats the same fields for every panel; here each panel is one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "docker" / "grafana" / "dashboards" / "vlinders.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 24
EVERY = "$__rate_interval"


def quantile(family: str, part: float, by: str = "") -> str:
    """Return the query of a quantile of a histogram, over all tenants or by a label."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, sum by ({labels}) (rate({family}_bucket{{{TENANTS}}}[{EVERY}])))"


def of_vllm(name: str) -> str:
    """Return the selector of a metric of vLLM's: some clients write the colon of its name as an underscore."""
    return f'{{__name__=~"vllm[:_]{name}"}}'


TENANTS = 'tenant=~"$tenant"'
REQUESTS = f"rate(vlinders_requests_total{{{TENANTS}}}[{EVERY}])"
TOKENS = f"rate(vlinders_tokens_total{{{TENANTS}}}[{EVERY}])"
TOKENS_ONCE = f'rate(vlinders_tokens_total{{kind!="cached",{TENANTS}}}[{EVERY}])'  # cached: part of prompt
ROWS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "Service": [
        ("Requests by status", "reqps", {"{{status}}": f"sum by (status) ({REQUESTS})"}),
        ("Errors of the server", "percentunit", {"5xx": "vlinders:error_ratio:rate5m"}),
        ("Active and waiting", "short", {
            "active": "sum(vlinders_active_requests)",
            "running in the engine": f"sum({of_vllm('num_requests_running')})",
            "waiting in the engine": f"sum({of_vllm('num_requests_waiting')})",
        }),
        ("Answers", "s", {f"p{p}": quantile("vlinders_response_seconds", p / 100) for p in (50, 95, 99)}),
        ("First tokens", "s", {
            f"p{p}": quantile("vlinders_time_to_first_token_seconds", p / 100) for p in (50, 95, 99)
        }),
        ("Between tokens", "s", {
            f"p{p}": quantile("vlinders_inter_token_seconds", p / 100) for p in (50, 95, 99)
        }),
        ("Tokens per second", "short", {"{{kind}}": f"sum by (kind) ({TOKENS})"}),
        ("GPUs", "percentunit", {
            "{{gpu_id}} busy": "vlinders_gpu_utilization",
            "{{gpu_id}} memory": "vlinders_gpu_memory_used / vlinders_gpu_memory_total",
        }),
        ("Requests by model", "reqps", {"{{model}}": f"sum by (model) ({REQUESTS})"}),
    ],
    "Tenants": [
        ("Requests", "reqps", {"{{tenant}}": f"sum by (tenant) ({REQUESTS})"}),
        ("Tokens per second", "short", {"{{tenant}}": f"sum by (tenant) ({TOKENS_ONCE})"}),
        ("Waiting in the queue, p95", "s", {"{{tenant}}": quantile("vlinders_queue_seconds", 0.95, "tenant")}),
        ("Refused by quotas", "reqps", {
            "{{tenant}}: {{limit}}":
            f"sum by (tenant, limit) (rate(vlinders_quota_refusals_total{{{TENANTS}}}[{EVERY}]))"
        }),
        ("Tokens charged to quotas", "short", {
            "{{tenant}}": f"sum by (tenant) (rate(vlinders_quota_tokens_total{{{TENANTS}}}[{EVERY}]))"
        }),
        ("Cost in the time shown", "short", {
            "{{tenant}}": f"sum by (tenant) (increase(vlinders_cost_total{{{TENANTS}}}[$__range]))"
        }),
        ("Usage ledger", "short", {
            "can be written": "min(vlinders_usage_up)",
            "requests lost": "sum(vlinders_usage_lost_total)",
        }),
        ("Credentials refused", "reqps", {
            "{{outcome}}": f'sum by (outcome) (rate(vlinders_auth_requests_total{{outcome!="allowed"}}[{EVERY}]))'
        }),
    ],
    "Scheduler": [
        ("Waiting in the queue by band, p95", "s", {"{{band}}": quantile("vlinders_queue_seconds", 0.95, "band")}),
        ("Requests by band", "reqps", {"{{band}}": f"sum by (band) ({REQUESTS})"}),
        ("Preemptions", "cps", {"{{reason}}": f"sum by (reason) (rate(vlinders_preemptions_total[{EVERY}]))"}),
        ("Aged and shed", "cps", {
            "aged": f"sum(rate(vlinders_aged_total[{EVERY}]))",
            "shed": f"sum(rate(vlinders_shed_total[{EVERY}]))",
        }),
        ("Longest waits and their bound", "s", {
            "p99": "vlinders:queue_seconds:p99",
            "five times scheduler.aging_seconds": "5 * max(vlinders_aging_seconds)",
        }),
    ],
    "Sessions and cache": [
        ("Prompt tokens from the prefix cache", "percentunit", {
            "{{tenant}}": f'sum by (tenant) (rate(vlinders_tokens_total{{kind="cached",{TENANTS}}}[{EVERY}]))'
            f' / sum by (tenant) (rate(vlinders_tokens_total{{kind="prompt",{TENANTS}}}[{EVERY}]))'
        }),
        ("KV blocks in use", "percentunit", {
            "engine {{engine}}": f"max by (engine) ({of_vllm('kv_cache_usage_perc')})"
        }),
        ("Hit rate of requests with and without a session", "percentunit", {
            "{{of}}": f"sum by (of) (rate(vlinders_session_hit_tokens_total[{EVERY}]))"
            f" / sum by (of) (rate(vlinders_session_prompt_tokens_total[{EVERY}]))"
        }),
        ("KV blocks kept, and no longer kept", "short", {
            "kept": f"sum(rate(vlinders_session_kept_blocks_total[{EVERY}]))",
            "{{reason}}": f"sum by (reason) (rate(vlinders_session_dropped_blocks_total[{EVERY}]))",
        }),
        ("Sessions at home, spilled and moved", "reqps", {
            "{{what}}": f"sum by (what) (rate(vlinders_session_ranks_total[{EVERY}]))"
        }),
    ],
    "Routing and saving": [
        ("Decisions by route", "reqps", {
            "{{route}}": f'sum by (route) (rate(vlinders_route_decisions_total{{policy="first"}}[{EVERY}]))'
        }),
        ("Decisions by model", "reqps", {
            "{{model}}": f'sum by (model) (rate(vlinders_route_decisions_total{{acted="yes"}}[{EVERY}]))'
        }),
        ("Where two policies differ", "reqps", {
            "{{first}}, {{second}}": f"sum by (first, second) (rate(vlinders_route_second_total[{EVERY}]))"
        }),
        ("What a decision takes", "s", {
            f"p{p}": f"histogram_quantile({p / 100}, sum by (le) (rate(vlinders_route_seconds_bucket[{EVERY}])))"
            for p in (50, 99)
        }),
        ("Decisions that failed", "cps", {"failed": f"sum(rate(vlinders_route_failures_total[{EVERY}]))"}),
        ("Share saved", "percentunit", {"of what the strongest model had cost": "vlinders:saving_ratio:rate1h"}),
        ("Cost in the time shown", "short", {
            "as routed": "sum(increase(vlinders_route_cost_total[$__range]))",
            "with the strongest model": "sum(increase(vlinders_route_cost_of_strongest_total[$__range]))",
        }),
        ("Requests to upstreams", "reqps", {
            "{{model}}: {{outcome}}":
            f"sum by (model, outcome) (rate(vlinders_route_upstream_requests_total[{EVERY}]))"
        }),
        ("Replicas that are up", "short", {
            "{{model}} {{replica}}": "min by (model, replica) (vlinders_route_upstream_up)"
        }),
    ],
    "Patches and versions": [
        ("Patches by state", "short", {
            "{{process}}: {{state}}": "sum by (process, state) (vlinders_patch_info)"
        }),
        ("Not applied", "short", {"patches": "vlinders:patches_not_applied"}),
        ("vLLM", "short", {"{{vllm}}": "count by (vllm) (vlinders_patch_info == 1)"}),
    ],
}  # fmt: skip


def panels() -> list[dict[str, Any]]:
    """Return the panels with their places."""
    found: list[dict[str, Any]] = []
    top = 0
    for row, contents in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        found.append({"type": "row", "title": row, "id": len(found) + 1, "gridPos": place, "panels": []})
        top += 1
        for number, (title, unit, queries) in enumerate(contents):
            across, down = number % (COLUMNS // WIDTH), number // (COLUMNS // WIDTH)
            place = {"x": across * WIDTH, "y": top + down * HEIGHT, "w": WIDTH, "h": HEIGHT}
            found.append(_panel(len(found) + 1, title, unit, queries) | {"gridPos": place})
        top += -(-len(contents) * WIDTH // COLUMNS) * HEIGHT
    return found


def _panel(number: int, title: str, unit: str, queries: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "id": number,
        "title": title,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for place, (legend, expr) in enumerate(queries.items())
        ],
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    tenants = {
        "name": "tenant",
        "label": "Tenant",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(vlinders_requests_total, tenant)", "refId": "tenants"},
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
    }
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "vlinders",
        "title": "vllm-vlinders",
        "tags": ["vllm", "vlinders"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, tenants]},
        "panels": panels(),
    }


def text() -> str:
    """Return the file's contents."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
