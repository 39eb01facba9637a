"""The command of docs/operations.md: a Prometheus with live data of an open server, and its queries answered."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from server import ROOT, Server, free_port

pytestmark = pytest.mark.slow


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")
def test_every_query_finds_data_but_those_of_what_the_server_does_not_have(scheduled: Server) -> None:
    script = str(ROOT / "scripts" / "prometheus.py")
    target = f"127.0.0.1:{scheduled.port}"
    done = subprocess.run(
        [sys.executable, script, "--check", "--target", target, "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=400,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    absent = {
        re.sub(r" \(\w+\)$", "", line.split(maxsplit=2)[2])
        for line in done.stdout.splitlines()
        if line[:8] == "not here"
    }
    assert absent - {"Requests to upstreams"} == {  # of which there are some once they have been asked
        "vlinders:quota_refusals:rate5m",
        "Refused by quotas",
        "Tokens charged to quotas",
        "Credentials refused",
        "Cost in the time shown",
        "GPUs",
        "Where two policies differ",
        "KV blocks kept, and no longer kept",
        "Sessions at home, spilled and moved",
    }
