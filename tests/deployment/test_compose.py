"""docker/compose.yaml, as Compose itself reads it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from image_variables import state_is_writable
from vllm_vlinders.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
pytestmark = pytest.mark.skipif(
    shutil.which("docker-compose") is None,
    reason="docker-compose is missing (Debian: apt-get install docker-compose)",
)
ALL = "gateway,state,monitoring"
SECONDS = re.compile(r"(?:(\d+)m)?(\d+)s")


@cache
def config(*files: str, profiles: str = "", **variables: str) -> dict[str, Any]:
    """Return the configuration that Compose makes of the files."""
    named = [part for file in files or ("compose.yaml",) for part in ("--file", str(FOLDER / file))]
    environment = {**os.environ, "COMPOSE_PROFILES": profiles, **variables}
    done = subprocess.run(
        ["docker-compose", *named, "config"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout))


def started(profiles: str) -> set[str]:
    """Return the services that start with these profiles."""
    wanted = set(profiles.split(","))
    services = config(profiles=ALL)["services"]
    return {
        name for name, one in services.items() if not one.get("profiles") or wanted & set(one["profiles"])
    }


def test_the_server_alone_starts_without_any_profile() -> None:
    assert started("") == {"vllm"}


def test_profiles_add_what_they_say() -> None:
    assert started("gateway") == {"vllm", "nginx"}
    assert started("state") == {"vllm", "redis", "postgres"}
    assert started("monitoring") == {"vllm", "prometheus", "grafana"}
    assert started(ALL) == {"vllm", "nginx", "redis", "postgres", "prometheus", "grafana"}


def test_every_mounted_file_is_shipped() -> None:
    for name, service in config(profiles=ALL)["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("/") or Path(source).exists(), f"{name}: {source}"


def test_gpus_are_asked_for_only_with_the_second_file() -> None:
    assert "deploy" not in config()["services"]["vllm"]
    (device,) = config("compose.yaml", "compose.gpu.yaml", GPUS="2")["services"]["vllm"]["deploy"][
        "resources"
    ]["reservations"]["devices"]
    assert (device["driver"], str(device["count"]), device["capabilities"]) == ("nvidia", "2", ["gpu"])


def test_the_server_is_confined_and_only_this_machine_reaches_it() -> None:
    server = config()["services"]["vllm"]

    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert all(str(port).startswith("127.0.0.1:") for port in server["ports"])


@pytest.mark.parametrize("variables", [{}, {"NETWORK": "192.168.44"}])
def test_the_server_believes_nginx_alone_for_whom_it_asks(variables: dict[str, str]) -> None:
    compose = config(profiles=ALL, **variables)
    address = compose["services"]["nginx"]["networks"]["default"]["ipv4_address"]
    (pool,) = compose["networks"]["default"]["ipam"]["config"]

    assert compose["services"]["vllm"]["environment"]["FORWARDED_ALLOW_IPS"] == address
    assert ip_address(address) in ip_network(pool["subnet"])
    assert ip_network(pool["ip_range"]).subnet_of(ip_network(pool["subnet"]))
    assert ip_address(address) not in ip_network(pool["ip_range"]), "another container could be given it"


@pytest.mark.parametrize("profile", ["high-throughput", "low-latency", "low-memory"])
def test_streams_have_time_to_end(profile: str) -> None:
    services = config(profiles=ALL, PROFILE=profile)["services"]
    path = next(part for part in services["vllm"]["command"] if part.endswith("/vllm.yaml"))
    drain = yaml.safe_load((FOLDER / path.removeprefix("/opt/vlinders/")).read_text())["shutdown-timeout"]

    for name in ("vllm", "nginx"):
        minutes, seconds = SECONDS.fullmatch(services[name]["stop_grace_period"]).groups()
        assert int(minutes or 0) * 60 + int(seconds) >= drain + 15


def test_the_closed_settings_ask_for_what_the_compose_file_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    given = config()["services"]["vllm"]["environment"]
    monkeypatch.setenv("VLINDERS_CONFIG", str(FOLDER / "settings" / "closed.yaml"))

    settings = load_settings()

    assert settings.auth is not None
    assert settings.auth.keys is not None
    keys = settings.auth.keys
    references = {keys.store, keys.pepper, settings.quotas.backend, settings.usage.store}
    assert references <= {f"env:{name}" for name in given}


def test_the_server_alone_can_keep_its_usage() -> None:
    compose = config()
    server = compose["services"]["vllm"]
    volumes = dict(volume.split(":")[:2] for volume in server["volumes"])
    named = {target for name, target in volumes.items() if name in compose["volumes"]}

    assert state_is_writable(server["environment"], named)


def test_prometheus_scrapes_every_address_of_the_service() -> None:
    """With --scale the name has several; as one target they would look like one server that jumps."""
    (job,) = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (lookup,) = job["dns_sd_configs"]
    services = config(profiles=ALL)["services"]

    assert "static_configs" not in job
    assert set(lookup["names"]) <= set(services)
    assert lookup["type"] == "A"
    assert all(
        str(port).removesuffix("/tcp").endswith(f":{lookup['port']}") for port in services["vllm"]["ports"]
    )
