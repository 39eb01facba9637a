"""Run a Prometheus on a live server, with the rules and scrape configuration of docker/prometheus.

It runs until Ctrl-C. `--check` asks every query of the dashboard and the rules instead, prints what
each returns, and ends: with 1 if one of them returns nothing.
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
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
SCRAPES = ROOT / "docker" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "vlinders.json"
PATIENCE_SECONDS = 120
_OF_GPUS = "vlinders_gpu_"


def configuration(target: str, key: str | None, every: str) -> dict[str, Any]:
    """Return the scrape configuration of docker/prometheus for one target, scraped as often as asked."""
    tree: dict[str, Any] = yaml.safe_load(SCRAPES.read_text(encoding="utf-8"))
    tree["global"] = {"scrape_interval": every, "evaluation_interval": every}
    job = tree["scrape_configs"][0]
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
    """Return what `query` finds now; nothing while Prometheus does not answer."""
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{query}: {error.read().decode()}") from None
    except OSError:
        return []
    return [series for series in result if series["value"][1] != "NaN"]


def queries(window: str = "1m") -> dict[str, str]:
    """Return every query of the dashboard and every recording rule, by where it stands."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            filled = target["expr"].replace("$__rate_interval", window).replace("$__range", window)
            found[f"{panel['title']} ({panel['id']}{target['refId']})"] = filled.replace("$tenant", ".*")
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        found |= {rule["record"]: rule["record"] for rule in group["rules"] if "record" in rule}
    return found


def unanswered(address: str, patience: float = PATIENCE_SECONDS, absent: str = "$^") -> dict[str, str]:
    """Return the queries that have found nothing in all that time, apart from those that match `absent`."""
    left = {place: query for place, query in queries().items() if not re.search(absent, query)}
    deadline = time.monotonic() + patience
    while left and time.monotonic() < deadline:
        time.sleep(1)
        left = {place: query for place, query in left.items() if not ask(address, query)}
    return left


def main() -> int:
    """Run until Ctrl-C, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", default="127.0.0.1:8000", help="where the server listens")
    parser.add_argument("--port", type=int, default=9090, help="where Prometheus listens, on loopback")
    parser.add_argument("--key-file", type=Path, help="a file with a key of role metrics")
    parser.add_argument("--check", action="store_true", help="ask every query, print, and end")
    parser.add_argument("--gpu", action="store_true", help="check the queries about NVIDIA GPUs too")
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
        absent = _OF_GPUS if not arguments.gpu else "$^"
        left = unanswered(address, absent=absent)
        for place, query in queries().items():
            said = "no GPU" if re.search(absent, query) else "nothing" if place in left else "data"
            print(f"{said:8} {place}")
        return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
