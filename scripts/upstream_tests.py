"""Run vLLM's own scheduler tests, unpatched and patched: what passes on stock must pass patched.

The tests come from vLLM's sdist of the installed release and run offline against the installed
vLLM, with made-up configurations in place of hub models (``tests/upstream/offline_hub.py``).
Standard library only, apart from the demo model.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

from make_tiny_model import make

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "tests" / "upstream"
ALL = (
    "test_scheduler.py",
    "test_async_scheduler.py",
    "test_prefix_caching.py",
    "test_priority_preemption_bug.py",
    "test_priority_scheduler_random.py",
)
POLICIES = ("fair", "fcfs", "priority", "sjf", "round_robin", "deadline")
# The multimodal tests import torchvision, whose build on PyPI fails on CPU torch for want of two
# operators. Declaring them is enough: no test calls them.
TORCHVISION = "torchvision==0.28.0"
DECLARATIONS = "".join(
    f'import torch; torch.library.define("torchvision::{name}", '
    '"(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
    for name in ("nms", "qnms")
)


def index_url() -> str:
    """Return the package index that pip is configured to use."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    configured = os.environ.get("PIP_INDEX_URL") or done.stdout.strip()
    return (configured or "https://pypi.org/simple").rstrip("/")


def sdist_url(release: str) -> str:
    """Return the address of vLLM's sdist (pip refuses it: its metadata claims another version)."""
    page_url = f"{index_url()}/vllm/"
    with urllib.request.urlopen(page_url, timeout=60) as response:
        page = response.read().decode()
    match = re.search(rf'href="([^"]*/vllm-{re.escape(release)}\.tar\.gz[^"]*)"', page)
    if match is None:
        sys.exit(f"upstream tests: the package index has no sdist of vLLM {release}")
    return urllib.parse.urljoin(page_url, html.unescape(match.group(1)))


def fetch_tests(folder: Path, release: str) -> None:
    """Extract the tests of the release, and pytest's settings, from its sdist."""
    print(f"Fetching the tests of vLLM {release}", flush=True)
    with (
        urllib.request.urlopen(sdist_url(release), timeout=300) as response,
        tarfile.open(fileobj=response, mode="r|gz") as sdist,
    ):
        for member in sdist:
            _, _, member.name = member.name.partition("/")
            if member.name.startswith("tests/") or member.name == "pyproject.toml":
                sdist.extract(member, folder, filter="data")


def install_torchvision(folder: Path) -> None:
    """Install torchvision beside the environment, where only these tests find it."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, TORCHVISION], check=True, stderr=subprocess.DEVNULL)
    module = folder / "torchvision" / "__init__.py"
    module.write_text(DECLARATIONS + module.read_text(encoding="utf-8"), encoding="utf-8")


def prepare(release: str) -> Path:
    """Return the folder that holds everything the tests of a release need."""
    folder = ROOT / ".upstream" / release
    if not folder.exists():
        partial = folder.with_name(f"{release}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        fetch_tests(partial, release)
        install_torchvision(partial / "site")
        partial.rename(folder)
    sys.path.insert(0, str(SUPPORT))
    from offline_hub import make_hub

    make_hub(folder / "hub", make()[0])
    return folder


def run(folder: Path, file: str, policy: str | None) -> dict[str, bool]:
    """Run one test file, stock or with the patches and a policy; return which of its tests passed.

    Skipped tests do not count.
    """
    kind = policy or "stock"
    print(f"\n{file}, {kind}", flush=True)
    report = folder / f"{Path(file).stem}.{kind}.xml"
    report.unlink(missing_ok=True)
    environment = os.environ | {
        # The base release comes from the environment, another one from the caller's path.
        "PYTHONPATH": os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH"), str(SUPPORT), str(folder / "site")])
        ),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CUSTOM_PATCHES": "vllm_vlinders" if policy else "",
        "VLINDERS_SCHEDULER__POLICY": policy or "fair",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "vlinders_upstream", "--tb=short"]
    command += ["-W", "ignore", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run([*command, f"tests/v1/core/{file}"], cwd=folder, env=environment, check=False)
    if not report.exists():
        sys.exit(f"upstream tests: pytest could not run {file} ({kind})")
    return {
        f"{case.get('classname')}::{case.get('name')}": not (case.findall("failure") or case.findall("error"))
        for case in ET.parse(report).iter("testcase")  # noqa: S314  pytest wrote it just now
        if not case.findall("skipped")
    }


def main() -> int:
    """Run the chosen files and tell the difference that the patches make."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", nargs="+", default=ALL, choices=ALL, help="which of the test files")
    parser.add_argument("--compare", action="store_true", help="run stock too, and compare")
    parser.add_argument("--policy", nargs="+", default=["fair"], choices=POLICIES, help="scheduling policies")
    arguments = parser.parse_args()
    release = version("vllm").partition("+")[0]
    folder = prepare(release)
    lines, good = [], True
    for file in arguments.file:
        stock = run(folder, file, None) if arguments.compare else None
        for policy in arguments.policy:
            after = run(folder, file, policy)
            # Where stock does not run, every test is expected to pass, as they all do on stock.
            expected = set(after) if stock is None else {name for name in stock if stock[name]}
            broken = sorted(name for name in expected if not after.get(name))
            good = good and bool(expected) and not broken
            passed = f"{sum(after.values())} of {len(after)} passed, {len(broken)} that should pass do not"
            lines += [f"{file}, {policy}: {passed}", *(f"  {name}" for name in broken)]
    print(f"\nvLLM {release}, its own tests", *lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
