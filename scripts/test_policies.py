"""Run vLLM's own short tests of what we touch under each scheduling policy, and compare with stock vLLM.

    python scripts/test_policies.py 0.32.0 [POLICY ...]

Some of them expect requests of unequal length to be served in the order of arrival, which shortest-job-first
does not promise: under it those are named, and do not count. 1 if any other test fails that passes without us.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from packaging.version import Version

from vllm_vlinders.compat.prove import SHORT, Prover
from vllm_vlinders.compat.sources import Sources
from vllm_vlinders.compat.workshop import Workshop

ROOT = Path(__file__).parents[1]
POLICIES = ("fcfs", "priority", "fair", "round_robin", "deadline", "sjf")
BY_ARRIVAL = {
    "sjf": {
        "test_schedule_order",
        "test_ec_connector_allocate_encoder_tokens_with_external_load",
        "test_fcfs_mixed_blocked_types_remote_load_drains_first",
        "test_async_load_reservation_prevents_wedge_e2e",
        "test_kv_pressure_preempt_mid_handoff",
    }
}
"""By policy: the tests that rest on the order of arrival."""


def main() -> int:
    """Run; 1 if a test fails that should pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("vllm", type=Version)
    parser.add_argument("policies", nargs="*", metavar="POLICY", help=f"of {', '.join(POLICIES)}; none: all")
    arguments = parser.parse_args()
    failed = False
    for policy in arguments.policies or POLICIES:
        os.environ["VLINDERS_SCHEDULER__POLICY"] = policy
        prover = Prover(Workshop(ROOT, Sources()), "vllm_vlinders", lambda _: None)
        run = prover.prove(arguments.vllm, SHORT, ())
        broken = [name for suite in run.suites for name in suite.broken]
        expected = [name for name in broken if _test(name) in BY_ARRIVAL.get(policy, ())]
        total = sum(suite.total for suite in run.suites)
        print(
            f"{policy}: {total - len(broken)} of {total} pass, {len(expected)} rest on the order of arrival",
            flush=True,
        )
        for name in sorted({*broken} - {*expected}):
            print(f"  should pass and does not: {name}", flush=True)
            failed = True
    return 1 if failed else 0


def _test(name: str) -> str:
    """Return the name of a test's function."""
    return name.rpartition("::")[2].partition("[")[0]


if __name__ == "__main__":
    sys.exit(main())
