"""vLLM's own balancer, patched, without the engines behind it: where requests of sessions and others go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from vllm_vlinders.sessions.affinity import NEVER_CROWDED, preference
from vllm_vlinders.sessions.identity import session_hash

pytest.importorskip("vllm")
RANKS = 4
NAMES = [session_hash("t", f"session {number}") for number in range(40)]
DRIVE = """
import asyncio, json, sys
from collections import Counter
from types import SimpleNamespace
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.v1.engine.core_client import DPLBAsyncMPClient
from vllm_vlinders.scheduling.tags import SessionTag, encode_session

ranks, names, few = json.loads(sys.argv[1])

def client(index):
    made = DPLBAsyncMPClient.__new__(DPLBAsyncMPClient)
    made.client_count, made.client_index, made.eng_start_index = 2, index, index
    made.core_engines = [bytes([rank]) for rank in range(ranks)]
    made.lb_engines = [[0, 0, 0.0] for _ in range(ranks)]
    made.engine_inflight, made.reqs_in_flight, made.streaming_reqs = Counter(), {}, set()
    made._finalizer = lambda: None
    return made

def send(client, name, session=None, rank=None):
    headers = None if session is None else encode_session(SessionTag(session, "t"), None)
    request = SimpleNamespace(request_id=name, data_parallel_rank=rank, pooling_params=None,
                              trace_headers=headers, resumable=False)
    engine = client.get_core_engine_for_request(request)
    assert request.data_parallel_rank == rank
    assert client.reqs_in_flight[name] == engine
    return engine[0]

def end(client, name):
    client.engine_inflight[client.reqs_in_flight.pop(name)] -= 1

async def main():  # as in an API server, a loop runs
    servers, found = [client(0), client(1)], {name: [] for name in names}
    for turn in range(4):
        for number, name in enumerate(names):
            server = servers[(turn + number) % 2]
            found[name].append(send(server, f"{name} {turn}", name))
            end(server, f"{name} {turn}")
            for each in servers:
                each.lb_engines = [[0, 0, 0.0] for _ in range(ranks)]
    one = client(0)
    plain = [send(one, f"plain {number}") for number in range(8)]
    busy = client(0)
    crowd = [send(busy, f"crowd {number}", names[0]) for number in range(40)]
    calm, calmly = client(0), []
    for number in range(few):
        calmly.append(send(calm, f"calm {number}", names[0]))
    explicit = send(client(0), "explicit", names[0], rank=3)
    ranks_of = {"found": found, "plain": plain, "crowd": crowd, "calm": calmly, "explicit": explicit}
    print("RESULT " + json.dumps(ranks_of))

asyncio.run(main())
"""


def drive(patches: str) -> Any:
    base = {key: value for key, value in os.environ.items() if not key.startswith("VLINDERS_")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVE, json.dumps([RANKS, NAMES, NEVER_CROWDED])],
        capture_output=True,
        text=True,
        env={**base, "VLLM_CUSTOM_PATCHES": patches},
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(result.removeprefix("RESULT "))


@pytest.fixture(scope="module")
def patched() -> Any:
    return drive("vllm_vlinders:sessions")


@pytest.fixture(scope="module")
def stock() -> Any:
    return drive("")


def test_a_session_reaches_its_rank_by_either_api_server(patched: Any, stock: Any) -> None:
    assert patched["found"] == {name: [preference(name, RANKS)[0]] * 4 for name in NAMES}
    assert any(len(set(ranks)) > 1 for ranks in stock["found"].values())


def test_others_are_balanced_as_in_stock(patched: Any, stock: Any) -> None:
    assert patched["plain"] == stock["plain"]
    assert {patched["plain"].count(rank) for rank in range(RANKS)} == {2}


def test_a_crowded_rank_spills_and_none_gets_more_than_its_bound(patched: Any) -> None:
    counts = [patched["crowd"].count(rank) for rank in range(RANKS)]
    order = preference(NAMES[0], RANKS)

    assert patched["crowd"][:NEVER_CROWDED] == [order[0]] * NEVER_CROWDED
    assert patched["crowd"][NEVER_CROWDED] == order[1]
    assert max(counts) <= 1.25 * 40 / RANKS + 1
    assert counts[order[0]] == max(counts)


def test_where_little_runs_a_session_stays_at_home(patched: Any) -> None:
    assert patched["calm"] == [preference(NAMES[0], RANKS)[0]] * NEVER_CROWDED


def test_a_rank_that_the_client_names_wins(patched: Any) -> None:
    assert patched["explicit"] == 3
