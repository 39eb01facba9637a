"""What is in the image, and what is not."""

from __future__ import annotations

import gzip
import json
import subprocess

from container import inspect, run, shell

MEGABYTE = 10**6
MOST_PULLED, MOST_ON_DISK = 60 * MEGABYTE, 95 * MEGABYTE
TOOLS = (
    "gcc",
    "g++",
    "cc",
    "c++",
    "clang",
    "make",
    "cmake",
    "ninja-build",
    "cargo",
    "git",
    "dpkg-buildpackage",
)


def packages(image: str) -> dict[str, str]:
    listed = shell(image, "python3 -m pip list --format=json --disable-pip-version-check 2>/dev/null")
    return {row["name"].lower(): row["version"] for row in json.loads(listed)}


def tar_of(folder: str) -> bytes:
    """Return the archive of a folder, which is what a layer is before it is compressed."""
    return subprocess.run(["tar", "-C", folder, "-cf", "-", "."], capture_output=True, check=True).stdout


def test_our_layers_are_small(names: dict[str, str]) -> None:
    base, ours = inspect(names["base"]), inspect(names["ours"])
    (layer,) = ours["RootFS"]["Layers"][len(base["RootFS"]["Layers"]) :]
    on_disk = ours["Size"] - base["Size"]
    pulled = len(gzip.compress(tar_of(ours["GraphDriver"]["Data"]["UpperDir"])))

    print(f"our layer {layer[:19]}: {pulled / MEGABYTE:.1f} MB to pull, {on_disk / MEGABYTE:.1f} MB on disk")
    assert 0 < pulled < MOST_PULLED
    assert pulled < on_disk < MOST_ON_DISK


def test_no_tools_and_no_leftovers(names: dict[str, str]) -> None:
    for name in ("ours", "company"):
        assert shell(names[name], f"command -v {' '.join(TOOLS)} || true") == ""
        left = (
            "ls -d /src /wheel /tmp/* /root/.cache /home/vllm/.cache/* /etc/pip.conf /run/secrets/* || true"
        )
        assert shell(names[name], f"{left} 2>/dev/null") == ""
        assert shell(names[name], "find /var/lib/apt/lists /var/cache/apt -type f") == ""


def test_the_packages_of_the_base_are_as_they_were(names: dict[str, str]) -> None:
    base, ours = packages(names["base"]), packages(names["ours"])

    assert base.items() <= ours.items()
    assert {"vllm-vlinders", "wrapt", "redis", "psycopg"} <= set(ours) - set(base)
    assert packages(names["company"]).keys() - ours.keys() == {"acme-patches"}


def test_it_runs_as_nobody_special(names: dict[str, str]) -> None:
    assert (
        shell(names["ours"], "id -u; id -g; whoami; echo $HOME; pwd")
        == "2000\n0\nvllm\n/home/vllm\n/home/vllm\n"
    )
    script = "find / -xdev -path /proc -prune -o -writable -not -type l -print 2>/dev/null || true"
    writable = shell(names["ours"], script).split()
    assert {place for place in writable if not place.startswith(("/tmp", "/var/tmp", "/dev"))} <= {
        "/home/vllm/.cache"
    }


def test_the_image_says_what_it_is(names: dict[str, str]) -> None:
    image = inspect(names["ours"])

    labels = {
        name.rpartition(".")[2]: value for name, value in image["Labels"].items() if "opencontainers" in name
    }
    assert labels["licenses"] == "Apache-2.0"
    assert f":{labels['version']}-" in names["ours"]
    assert len(labels["revision"]) == 40
    assert image["Config"]["Entrypoint"] == ["vlinders-serve"]
    assert image["Config"]["StopSignal"] in ("SIGTERM", "15")
    assert list(image["Config"]["ExposedPorts"]) == ["8000/tcp"]
    assert image["Healthcheck"]["Test"][:3] == ["CMD", "python3", "-c"]
    assert "VLLM_CUSTOM_PATCHES=vllm_vlinders" in image["Config"]["Env"]
    assert "VLLM_CUSTOM_PATCHES=vllm_vlinders,acme_patches" in inspect(names["company"])["Config"]["Env"]


def test_what_the_doctor_finds_keeps_it_from_starting(names: dict[str, str]) -> None:
    options = ("--rm", "--env", "VLINDERS_SCHEDULER__POLICY=sideways")

    done = run(names["ours"], "/model", options=options, check=False)

    assert done.returncode == 1
    assert "sideways" in done.stdout
    assert "not started" in done.stderr
    assert "APIServer" not in done.stdout + done.stderr
