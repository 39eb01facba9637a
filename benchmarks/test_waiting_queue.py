"""What ordering adds to a scheduling step, beside vLLM's own queues on the same machine.

One step: look at the first, admit four, skip one and put it back, and take in five new requests; with
priorities also sort 256 running requests. Limit: 50 us over the first-come-first-served queue with
10,000 waiting, at the median.
"""

from __future__ import annotations

import random
import timeit
from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import pytest
from vllm.v1.core.sched.request_queue import FCFSRequestQueue, PriorityRequestQueue

from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

QUEUES = {"stock fcfs": FCFSRequestQueue, "stock priority": PriorityRequestQueue, "ours": WaitingQueue}
RUNNING = 256


@dataclass(eq=False)
class Request:
    """As much of vLLM's Request as its queues look at."""

    priority: int
    arrival_time: int
    request_id: str = field(default="r")

    def __lt__(self, other: Request) -> bool:
        return (self.priority, self.arrival_time) < (other.priority, other.arrival_time)


def fill(kind: str, waiting: int) -> tuple[Any, list[Request]]:
    draw = random.Random(0)
    queue = QUEUES[kind]()
    for number in range(waiting):
        queue.add_request(Request(-draw.randint(0, 1000), number))
    running = sorted((Request(-draw.randint(0, 1000), n) for n in range(RUNNING)), key=attrgetter("priority"))
    return queue, running


def step(queue: Any, running: list[Request], sort: bool) -> None:
    if sort:
        running.sort(key=attrgetter("priority"))
    admitted = []
    for _ in range(4):
        queue.peek_request()
        admitted.append(queue.pop_request())
    skipped = deque([queue.pop_request()])
    queue.prepend_requests(skipped)
    for request in admitted:
        queue.add_request(request)


@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("waiting", [100, 1_000, 10_000, 100_000])
def test_step(benchmark, kind: str, waiting: int) -> None:
    benchmark.group = f"{waiting} waiting"
    queue, running = fill(kind, waiting)
    benchmark(step, queue, running, kind == "ours")


def test_limit_at_10_000_waiting() -> None:
    """In turns, so that a slower moment of the machine meets both."""
    cases = {kind: fill(kind, 10_000) for kind in ("stock fcfs", "ours")}
    times: dict[str, list[float]] = {kind: [] for kind in cases}
    for _ in range(300):
        for kind, (queue, running) in cases.items():
            times[kind].append(
                timeit.timeit(lambda q=queue, r=running, k=kind: step(q, r, k == "ours"), number=5) / 5
            )
    middle = {kind: 1e6 * sorted(values)[len(values) // 2] for kind, values in times.items()}
    print(
        f"\n  a step with 10,000 waiting: {middle['ours']:.1f} us, stock fcfs {middle['stock fcfs']:.1f} us"
    )
    assert middle["ours"] - middle["stock fcfs"] < 50
