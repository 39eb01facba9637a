"""A second count of a load, kept by its clients: what they sent, got and waited for."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from server import NAME, Server
from traffic import DEADLINE, PRIORITY, TENANT

CLIENTS = 6
CHAT = "/v1/chat/completions"
TOKENS, REQUESTS = "vlinders_tokens_total", "vlinders_requests_total"
_SETTLE_SECONDS = 60


@dataclass(frozen=True)
class Sent:
    """One request of the load; `leave_after` lines of its stream the client goes away."""

    tenant: str
    priority: int | str = 0
    path: str = "/v1/completions"
    body: dict[str, Any] = field(default_factory=dict)
    leave_after: int | None = None
    deadline_ms: int | None = None

    def json(self) -> dict[str, Any]:
        text = f"{self.tenant} counts again and again " * 8
        prompt: dict[str, Any] = {"prompt": text}
        if self.path.endswith("/chat/completions"):
            prompt = {"messages": [{"role": "user", "content": text}]}
        return {"model": NAME, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **prompt, **self.body}

    def headers(self) -> dict[str, str]:
        limit = {} if self.deadline_ms is None else {DEADLINE: str(self.deadline_ms)}
        return {TENANT: self.tenant, PRIORITY: str(self.priority), **limit}


@dataclass
class Tally:
    """What the clients counted."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    response: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    first_token: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    gaps: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def count(server: Server, load: Sequence[Sent]) -> Tally:
    """Send `load` from several clients, each request over a connection of its own; count."""
    tally, lock = Tally(), threading.Lock()

    def send(sent: Sent) -> None:
        with server.client() as client:
            begin = time.perf_counter()
            status, usage, moments = _answer(client, sent)
            seconds = time.perf_counter() - begin
        with lock:
            tally.requests[sent.tenant, str(status)] += 1
            tally.response[sent.tenant] += seconds
            if moments:
                tally.first_token[sent.tenant] += moments[0] - begin
                tally.gaps[sent.tenant] += moments[-1] - moments[0]
            for kind, tokens in usage.items():
                tally.tokens[sent.tenant, kind] += tokens

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, load))
    return tally


def _answer(client: httpx.Client, sent: Sent) -> tuple[int, dict[str, int], list[float]]:
    """Return status, usage, and the moments at which tokens came."""
    body = sent.json()
    if not body.get("stream"):
        answer = client.post(sent.path, json=body, headers=sent.headers())
        return answer.status_code, _usage(answer.json().get("usage")), []
    moments, usage, number = [], None, 0
    body["stream_options"] = {"include_usage": True}
    with client.stream("POST", sent.path, json=body, headers=sent.headers()) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            number += 1
            if number == sent.leave_after:
                return 499, {}, []
            part = json.loads(line.removeprefix("data: "))
            usage = part.get("usage") or usage
            if part["choices"]:
                moments.append(time.perf_counter())
        return answer.status_code, _usage(usage), moments


def _usage(usage: dict[str, Any] | None) -> dict[str, int]:
    if not usage:
        return {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {"prompt": usage["prompt_tokens"], "cached": cached, "completion": usage["completion_tokens"]}


class Exposed:
    """The samples of one scrape.

    Raises:
        ValueError: prometheus_client cannot parse it.
    """

    def __init__(self, server: Server) -> None:
        with server.client() as client:
            answer = client.get("/metrics")
        assert answer.status_code == httpx.codes.OK
        self.samples = [
            sample for family in text_string_to_metric_families(answer.text) for sample in family.samples
        ]

    def by(self, name: str, *labels: str) -> Counter[Any]:
        """Return the sums of a metric's samples by these labels; by one label, that alone is the key."""
        sums: Counter[Any] = Counter()
        for sample in self.samples:
            if sample.name == name:
                key = tuple(sample.labels[label] for label in labels)
                sums[key if len(key) > 1 else key[0] if key else ""] += sample.value
        return sums

    def total(self, name: str) -> float:
        """Return the sum of all samples of a metric."""
        return float(sum(self.by(name).values()))

    def counters(self) -> Iterator[tuple[tuple[str, frozenset[tuple[str, str]]], float]]:
        """Yield each sample of ours that must never become less."""
        for sample in self.samples:
            rising = sample.name.endswith(("_total", "_count", "_sum", "_bucket"))
            if sample.name.startswith("vlinders_") and rising:
                yield (sample.name, frozenset(sample.labels.items())), sample.value


def settled(server: Server, before: Exposed, requests: int) -> Exposed:
    """Return a scrape in which `requests` more have ended than in `before`, and none is active."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        now = Exposed(server)
        ended = now.total(REQUESTS) - before.total(REQUESTS)
        if (ended >= requests and not now.total("vlinders_active_requests")) or time.monotonic() > deadline:
            return now
        time.sleep(0.1)


def mixed_load() -> list[Sent]:
    """Return requests of every kind, of several tenants."""
    load = []
    for number in range(5):
        load += [
            Sent("acme", 0, body={"max_tokens": 5 + number}),
            Sent("acme", 60, CHAT, {"max_tokens": 4}),
            Sent("acme", 0, CHAT, {"n": 2, "temperature": 1, "seed": number}),
            Sent("beta", 95, body={"stream": True, "max_tokens": 7}),
            Sent("beta", 500, CHAT, {"stream": True}),
            Sent("beta", 0, body={"prompt": ["one", "two words", "three more words"]}),
            Sent("beta", 0, body={"stop": "e", "max_tokens": 30, "ignore_eos": False}),
            Sent("gone", 0, body={"stream": True, "max_tokens": 1500}, leave_after=2),
            Sent("wrong", "many"),
            Sent("wrong", 0, body={"model": "unknown"}),
            Sent("wrong", 0, "/v1/no/such/path"),
            Sent("open", 0, "/tokenize", {"prompt": "Hello"}),
        ]
    return load


def compare(server: Server, load: Sequence[Sent]) -> tuple[Tally, Exposed, Exposed]:
    """Send `load`; return the clients' count, and what was exposed before and after."""
    before = Exposed(server)
    tally = count(server, load)
    return tally, before, settled(server, before, len(load))


def risen(after: Counter[object], before: Counter[object]) -> dict[object, float]:
    """Return by how much each has risen, where it has."""
    return {key: value - before[key] for key, value in after.items() if value != before[key]}


def booked(server: Server) -> Counter[object]:
    """Return the tokens in the usage ledger, by tenant and kind."""
    with server.client() as client:
        rows = client.get("/vlinders/usage").json()["usage"]["rows"]
    found: Counter[object] = Counter()
    for row in rows:
        for kind in ("prompt", "cached", "completion"):
            found[row["tenant"], kind] += row[f"{kind}_tokens"]
    return found


def known(tokens: dict[object, float]) -> dict[object, float]:
    """Return the tokens of those clients that waited for their usage."""
    return {key: number for key, number in tokens.items() if key[0] != "gone"}  # type: ignore[index]


def check_counts(server: Server, load: Sequence[Sent]) -> None:
    """Check requests and tokens by tenant, in metrics and ledger, against those that the clients counted."""
    tenants = {sent.tenant for sent in load}

    def of_load(stored: dict[object, float]) -> dict[object, float]:
        """Leave out what an API server stores late of requests before."""
        return {key: number for key, number in stored.items() if key[0] in tenants}  # type: ignore[index]

    ledger = booked(server)
    tally, before, after = compare(server, load)
    counted = risen(after.by(REQUESTS, "tenant", "status"), before.by(REQUESTS, "tenant", "status"))
    tokens = risen(after.by(TOKENS, "tenant", "kind"), before.by(TOKENS, "tenant", "kind"))
    theirs = {key: number for key, number in tally.tokens.items() if number}

    assert counted == dict(tally.requests)
    assert known(tokens) == theirs
    deadline = time.monotonic() + _SETTLE_SECONDS  # another API server stores what it has soon
    while known(stored := of_load(risen(booked(server), ledger))) != theirs and time.monotonic() < deadline:
        time.sleep(0.1)
    assert known(stored) == theirs
    gone = sum(sent.tenant == "gone" for sent in load)
    assert tokens["gone", "completion"] >= gone, "what the engine made for clients that left counts"
    assert after.total("vlinders_active_requests") == 0
    for key, value in before.counters():
        assert dict(after.counters())[key] >= value, key
