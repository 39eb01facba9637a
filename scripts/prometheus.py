"""Run a Prometheus on a live server, with the rules and scrape configuration of docker/prometheus.

It runs until Ctrl-C. `--check` asks every query of the dashboard and the rules instead, while it sends some
requests, prints whether each finds data, and ends: with 1 if one finds none although the server has all
metrics that it asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
SCRAPES = ROOT / "docker" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "vlinders.json"
PATIENCE_SECONDS = 300
_ELSEWHERE = re.compile(r"\bvlinders(_gpu|_session|_route|:saving)_")
_METRIC = re.compile(r"\bvlinders_\w+")
_RECORD = re.compile(r"\bvlinders:[\w:]+")


def configuration(target: str, key: str | None, every: str) -> dict[str, Any]:
    """Return the scrape configuration of docker/prometheus for one target, scraped as often as asked."""
    tree: dict[str, Any] = yaml.safe_load(SCRAPES.read_text(encoding="utf-8"))
    tree["global"] = {"scrape_interval": every, "evaluation_interval": every}
    job = tree["scrape_configs"][0]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    if key is not None:
        job["authorization"] = {"credentials": key}
    return tree


@contextlib.contextmanager
def prometheus(target: str, port: int, *, key: str | None = None, every: str = "15s") -> Iterator[str]:
    """Yield the address of a Prometheus that scrapes `target`; its data go when it ends."""
    with tempfile.TemporaryDirectory(prefix="vlinders-prometheus-") as folder:
        config = Path(folder) / "prometheus.yml"
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(configuration(target, key, every)), encoding="utf-8")
        rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group["interval"] = every
        (Path(folder) / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
        process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ]
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def ask(address: str, query: str) -> list[dict[str, Any]]:
    """Return what `query` finds now; nothing while Prometheus does not answer or is not ready (503).

    Raises:
        SystemExit: Prometheus refuses the query.
    """
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            return []
        raise SystemExit(f"{query}: {error.read().decode()}") from None
    except OSError:
        return []
    return [series for series in result if series["value"][1] != "NaN"]


def queries(window: str = "1m") -> dict[str, tuple[str, set[str]]]:
    """Return every query of the dashboard and every recording rule, by where it stands, with its metrics of ours."""
    rules = {
        rule["record"]: rule["expr"]
        for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    asked = {record: record for record in rules}
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            filled = target["expr"].replace("$__rate_interval", window).replace("$__range", window)
            asked[f"{panel['title']} ({panel['id']}{target['refId']})"] = filled.replace("$tenant", ".*")
    return {
        place: (
            query,
            set(_METRIC.findall(" ".join([query, *(rules[name] for name in _RECORD.findall(query))]))),
        )
        for place, query in asked.items()
    }


def send(url: str, path: str, key: str | None, body: Any = None) -> str:
    """Return the answer of the server; of an error, nothing."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def check(address: str, server: str, key: str | None, *, everything: bool) -> int:
    """Ask every query until it finds something; print what came of it.

    Args:
        address: of Prometheus.
        server: of vLLM; it is sent requests meanwhile, which need a key that may.
        key: sent with those, or None.
        everything: whether metrics that the server does not have count as nothing found, but for those of
            GPUs, sessions and routing.
    """
    left, excused = queries(), set[str]()
    deadline = time.monotonic() + PATIENCE_SECONDS
    models = [model["id"] for model in json.loads(send(server, "/v1/models", key) or '{"data": []}')["data"]]
    while not left.keys() <= excused and time.monotonic() < deadline:
        for model in models:
            body = {"model": model, "prompt": "Hello", "max_tokens": 8, "stream": True}
            send(server, "/v1/completions", key, body)
        left = {place: each for place, each in left.items() if not ask(address, each[0])}
        excused = _absent(send(server, "/metrics", key), left)
        if everything:
            excused = {place for place in excused if _ELSEWHERE.search(left[place][0])}
        time.sleep(0.5)
    for place in queries():
        print(f"{'data' if place not in left else 'not here' if place in excused else 'nothing':9} {place}")
    return 0 if left.keys() <= excused else 1


def _absent(exposed: str, asked: dict[str, tuple[str, set[str]]]) -> set[str]:
    """Return the places that ask for a metric which is not `exposed`."""
    there = {re.split(r"[{ ]", line)[0] for line in exposed.splitlines() if not line.startswith("#")}
    return {place for place, (_, metrics) in asked.items() if not metrics <= there}


def main() -> int:
    """Run until Ctrl-C, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", default="127.0.0.1:8000", help="where the server listens")
    parser.add_argument("--port", type=int, default=9090, help="where Prometheus listens, on loopback")
    parser.add_argument("--key-file", type=Path, help="a file with a key of role metrics")
    parser.add_argument("--check", action="store_true", help="ask every query, print, and end")
    parser.add_argument(
        "--all",
        action="store_true",
        help="expect data for all but GPUs, sessions and routing (prices, auth, quotas)",
    )
    arguments = parser.parse_args()
    key = arguments.key_file.read_text().strip() if arguments.key_file else None
    if shutil.which("prometheus") is None:
        print("there is no prometheus on the path: apt-get install prometheus", file=sys.stderr)
        return 2
    with prometheus(arguments.target, arguments.port, key=key, every="1s") as address:
        if not arguments.check:
            print(f"Prometheus scrapes {arguments.target}: {address}/graph (Ctrl-C ends it)")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
            return 0
        return check(address, f"http://{arguments.target}", key, everything=arguments.all)


if __name__ == "__main__":
    sys.exit(main())
