"""The metrics of two API servers and two engine cores, against what the clients counted."""

from __future__ import annotations

import pytest

from second_count import Exposed, Sent, check_counts, count, mixed_load, settled
from server import Server

pytestmark = pytest.mark.slow


def test_two_api_servers_count_what_the_clients_counted(data_parallel: Server) -> None:
    check_counts(data_parallel, mixed_load())


def test_the_engine_cores_of_two_ranks_are_exposed_with_two_api_servers(data_parallel: Server) -> None:
    before = Exposed(data_parallel)
    load = [Sent("late", 0, body={"max_tokens": 300})] * 12 + [Sent("late", 0, deadline_ms=1)] * 6
    tally = count(data_parallel, load)
    after = settled(data_parallel, before, len(load))

    shed = after.total("vlinders_shed_total") - before.total("vlinders_shed_total")
    assert shed == tally.requests["late", "503"]
    assert after.by("vlinders_preemptions_total", "reason").keys() == {"slots", "blocks", "vllm"}
