"""What ordering adds to a scheduling step, beside vLLM's own queues on the same machine.

One step: look at the first, admit four, skip one and put it back, take in four new requests and let
four end; with ours also keep 256 running requests in order and charge their tenants. Limit: 50 us over
the first-come-first-served queue with 10,000 waiting of one tenant, at the median; growth logarithmic.
"""

from __future__ import annotations

import random
import time
import timeit
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from statistics import median
from typing import Any

import pytest
from vllm.v1.core.sched.request_queue import FCFSRequestQueue, PriorityRequestQueue

from vllm_vlinders.scheduling.desk import Desk
from vllm_vlinders.scheduling.running_order import restore_order
from vllm_vlinders.scheduling.tags import Tags, encode
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue
from vllm_vlinders.settings import SchedulerSettings

RUNNING = 256
TENANTS = 20
KINDS = ["stock fcfs", "stock priority", "fcfs", "priority", "fair", "sjf", "round_robin", "deadline"]
_numbers = count()


@dataclass(eq=False)
class Request:
    """As much of vLLM's Request as its queues and ours look at."""

    priority: int
    arrival_time: int
    trace_headers: Mapping[str, str] | None
    request_id: str = field(default_factory=lambda: f"r{next(_numbers)}")
    client_index: int = 0
    num_prompt_tokens: int = 100
    max_tokens: int = 100
    num_preemptions: int = 0
    resumable: bool = False
    num_output_tokens: int = 0
    num_computed_tokens: int = 100

    def __lt__(self, other: Request) -> bool:
        return (self.priority, self.arrival_time) < (other.priority, other.arrival_time)


class Batch:
    """A queue with so many waiting, and a full batch beside it."""

    def __init__(self, kind: str, waiting: int, tenants: int = TENANTS) -> None:
        self.draw, self.tenants = random.Random(0), tenants
        stock = {"stock fcfs": FCFSRequestQueue, "stock priority": PriorityRequestQueue}
        self.desk = None if kind in stock else Desk(SchedulerSettings(policy=kind), print)
        self.queue: Any = WaitingQueue(self.desk) if self.desk else stock[kind]()
        self.running: list[Request] = []
        for _ in range(RUNNING):
            self.queue.add_request(self.request())
            self.running.append(self.queue.pop_request())
        for _ in range(waiting):
            self.queue.add_request(self.request())

    def request(self) -> Request:
        """Draw a request."""
        tags = Tags(f"tenant {self.draw.randrange(self.tenants)}")
        return Request(-self.draw.randint(0, 1000), next(_numbers), encode(tags, None))

    def step(self) -> None:
        """Do what a scheduling step asks of the queue."""
        if self.desk:
            self.desk.step += 1
            if self.queue.by_priority:
                restore_order(self.running, self.desk.least_urgent, attrgetter("priority"))
                self.desk.least_urgent = self.running[-1]
            self.desk.too_late()
            self.desk.too_many()
        for _ in range(4):
            self.queue.peek_request()
            self.running.append(self.queue.pop_request())
        self.queue.prepend_requests(deque([self.queue.pop_request()]))
        if self.desk:
            if self.desk.contended:
                for request in self.running:
                    request.num_computed_tokens += 1
                self.desk.charge({request.request_id: 1 for request in self.running})
            for request in self.running[:4]:
                self.desk.finished(request.request_id)
        del self.running[:4]

    def refill(self) -> None:
        """Take in four: their arrival is not a cost of the step."""
        for _ in range(4):
            self.queue.add_request(self.request())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("waiting", [100, 1_000, 10_000, 100_000])
def test_step(benchmark, kind: str, waiting: int) -> None:
    benchmark.group = f"{waiting} waiting, {TENANTS} tenants"
    batch = Batch(kind, waiting)
    benchmark.pedantic(batch.step, setup=batch.refill, rounds=400)


def medians(kinds: Sequence[str], waiting: int, tenants: int) -> dict[str, float]:
    """Return the cost of a step in us, in turns, in processor time of the thread: other processes do not count."""
    batches = {kind: Batch(kind, waiting, tenants) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(400):
        for kind, batch in batches.items():
            batch.refill()
            times[kind].append(timeit.timeit(batch.step, time.thread_time, number=1))
    middle = {kind: 1e6 * median(values) for kind, values in times.items()}
    shown = ", ".join(f"{kind} {value:.1f}" for kind, value in middle.items())
    print(f"  a step with {waiting} waiting, {tenants} tenant(s), in us: {shown}")
    return middle


def test_limit_at_10_000_waiting() -> None:
    print()
    medians(KINDS, 10_000, TENANTS)
    middle = medians(KINDS, 10_000, 1)
    assert middle["fair"] - middle["stock fcfs"] < 50


def test_growth_is_logarithmic() -> None:
    print()
    costs = {n: medians(["stock fcfs", "fair"], n, 1)["fair"] for n in (100, 1_000, 10_000, 100_000)}
    assert costs[100_000] < 2 * costs[1_000]
