"""Requests whose order the server decides, observed without a clock.

`Queue` holds every slot of the batch with endless requests, lets requests line up in a known order,
frees one slot, and reads from the server's log in which order its engine started them.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from server import CONTEXT, NAME, Server

PATIENCE_SECONDS = 600
HOLDERS = 5
PRIORITY, TENANT, DEADLINE = "X-Vlinders-Priority", "X-Vlinders-Tenant", "X-Vlinders-Deadline-Ms"
ENDLESS = CONTEXT - 200
POLL_SECONDS = 0.1
STARTED = "paced worker: started "
"""As in paced_worker, which cannot be imported without vLLM."""


@dataclass(frozen=True)
class Call:
    """One request: its name in the observed order, and what it sends; `id` is in the engine's id of it."""

    name: str
    header: int | None = None
    body: int | None = None
    model: str = NAME
    path: str = "/v1/completions"
    stream: bool = False
    tokens: int = 6
    tenant: str | None = None
    deadline_ms: int | str | None = None
    n: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def json(self) -> dict[str, Any]:
        """Return the body."""
        limit = "max_output_tokens" if self.path.endswith("/responses") else "max_tokens"
        fields: dict[str, Any] = {"model": self.model, limit: self.tokens, "temperature": 0}
        if self.path.endswith("/chat/completions"):
            fields["messages"] = [{"role": "user", "content": self.name}]
        elif self.path.endswith("/responses"):
            fields |= {"input": self.name, "request_id": f"resp_{self.id}"}
        else:
            fields["prompt"] = f"request {self.name}"
        if self.path.startswith("/v1/") and not self.path.endswith("/responses"):
            fields["ignore_eos"] = True
        if self.body is not None:
            fields["priority"] = self.body
        if self.stream:
            fields["stream"] = True
        if self.n > 1:
            fields |= {"n": self.n, "temperature": 1}
        return fields

    def headers(self) -> dict[str, str]:
        """Return the id, and the headers of ours that are given."""
        given = {
            PRIORITY: self.header,
            TENANT: self.tenant,
            DEADLINE: self.deadline_ms,
            "X-Request-Id": self.id,
        }
        return {name: str(value) for name, value in given.items() if value is not None}


class Queue:
    """The waiting queue of `server`, which must have no other traffic."""

    def __init__(self, server: Server, client: httpx.AsyncClient, slots: int) -> None:
        self.server = server
        self.client = client
        self.slots = slots
        self._before = len(server.log)
        self._holders: dict[int, asyncio.Task[None]] = {}
        """The earliest sent first: those at the end wait."""
        self._calls: dict[Call, asyncio.Task[None]] = {}

    async def hold(self, priority: int) -> None:
        """Occupy every slot with requests of `priority`, with some in reserve.

        A holder that ends is followed at once by one of the reserve, and joins the reserve again.
        """
        for number in range(HOLDERS):
            self._holders[number] = asyncio.create_task(self._hold_on(number, priority))
            running = min(number + 1, self.slots)
            await self.until(running=running, waiting=number + 1 - running)

    async def _hold_on(self, number: int, priority: int) -> None:
        while True:
            await self._send(Call(f"holder {number}", header=priority, tokens=ENDLESS))
            self._holders[number] = self._holders.pop(number)

    async def line_up(self, calls: Sequence[Call]) -> None:
        """Send `calls`; each is in the queue before the next one is sent."""
        for call in calls:
            await self.send_together([call])

    async def send_together(self, calls: Sequence[Call]) -> None:
        """Send `calls` all at once, in no order, and wait until all are in the queue."""
        self._calls |= {call: asyncio.create_task(self._send(call)) for call in calls}
        await self.until(running=self.slots, waiting=HOLDERS - self.slots + len(self._calls))

    async def free_one_slot(self) -> None:
        """End all holders but the one sent last, which starts now: one slot serves the queue, one by one."""
        *ended, _ = self._holders.values()
        await _cancel(ended)

    async def finish(self) -> list[str]:
        """Free a slot, wait for all calls and return their names in the order in which the engine started them."""
        await self.free_one_slot()
        await asyncio.gather(*self._calls.values())
        started = [line.partition(STARTED)[2] for line in self.server.log[self._before :].splitlines()]
        return [call.name for request in started for call in self._calls if call.id in request]

    async def disconnect_all(self) -> None:
        """Close the connections of all that was sent."""
        tasks = [*self._calls.values(), *self._holders.values()]
        self._calls, self._holders = {}, {}
        await _cancel(tasks)

    async def until(self, **expected: int) -> None:
        """Wait until the gauges vllm:num_requests_<name> have these values.

        Raises:
            AssertionError: they have not within `PATIENCE_SECONDS`.
        """
        found: dict[str, int] = {}
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (found := await self._gauges(expected)) != expected:
                    self._raise_failures()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            message = f"expected {expected}, last found {found}"
            raise AssertionError(f"{message}; the server's log ends:\n{self.server.log[-2000:]}") from None

    async def _gauges(self, names: Iterable[str]) -> dict[str, int]:
        text = (await self.client.get("/metrics")).text
        return {name: _gauge(text, name) for name in names}

    def _raise_failures(self) -> None:
        for task in (*self._calls.values(), *self._holders.values()):
            if task.done():
                task.result()

    async def answer(self, call: Call) -> httpx.Response:
        """Send `call` and return its answer, whatever it is."""
        return await self.client.post(call.path, json=call.json(), headers=call.headers())

    async def _send(self, call: Call) -> None:
        response = await self.answer(call)
        assert response.status_code == httpx.codes.OK, response.text


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _gauge(text: str, name: str) -> int:
    found = re.findall(rf"^vllm:num_requests_{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
    assert found, f"/metrics has no vllm:num_requests_{name}"
    return round(sum(map(float, found)))


@asynccontextmanager
async def full_batch(server: Server, slots: int, *, priority: int = 1000) -> AsyncIterator[Queue]:
    """Provide the queue of a server whose slots are all taken; afterwards, nothing is left in it.

    Args:
        server: has no other traffic.
        slots: its ``--max-num-seqs``.
        priority: of the requests that take the slots; as it is given, more urgent than any other.
    """
    # A connection per request: a server that stalls past its keep-alive closes idle ones unannounced.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=server.url, headers=server.credentials(), timeout=None, limits=limits
    ) as client:
        queue = Queue(server, client, slots)
        try:
            await queue.hold(priority)
            yield queue
        finally:
            await queue.disconnect_all()
            await queue.until(running=0, waiting=0)


def order_of_service(
    server: Server, slots: int, calls: Sequence[Call], *, after: Sequence[Call] = ()
) -> list[str]:
    """Return the order in which `server` starts requests that gathered while it was busy.

    Args:
        server: has no other traffic, and a paced worker.
        slots: its ``--max-num-seqs``.
        calls: line up in this order.
        after: are in the queue before `calls`, in any order.
    """

    async def run() -> list[str]:
        async with full_batch(server, slots) as queue:
            await queue.send_together(after)
            await queue.line_up(calls)
            return await queue.finish()

    return asyncio.run(run())
