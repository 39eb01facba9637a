"""Limits that several servers share in Redis."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from guarded_site import CHAT, bearer, body, engine, used

from vllm_vlinders.auth.quota import shared as shared_module
from vllm_vlinders.auth.quota.charge import Charge, Receipt, Refusal
from vllm_vlinders.auth.quota.ledger import Ledger
from vllm_vlinders.auth.quota.shared import SharedLedger


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Redis of this module's own: its URL, and how to end it."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0", process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that stands still for a moment is waited for."""
    monkeypatch.setattr(shared_module, "_TIMEOUT_SECONDS", 30.0)


def test_servers_share_their_limits_in_redis(redis_server: Any) -> None:
    """Eight servers' ledgers, in threads, admit together what one would: exactly the limit."""
    url, _ = redis_server
    admitted: list[int] = []

    def hammer() -> None:
        ledger, count = SharedLedger(url), 0
        charges = [Charge("t:a", "tokens", 3, 1000, 60_000), Charge("t:b", "tokens", 1, 300, 60_000)]
        while isinstance(answer := ledger.reserve_now(charges), Receipt):
            count += 1
        assert isinstance(answer, Refusal)
        assert answer.charge.subject == "t:b"
        assert answer.wait_ms is not None
        assert 0 < answer.wait_ms <= 62_000
        admitted.append(count)
        ledger.close()

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 300
    ledger = SharedLedger(url)
    answer = ledger.reserve_now([Charge("t:a", "tokens", 0, 1000, 60_000)])
    assert isinstance(answer, Receipt)
    assert answer.levels[0].used == 900
    assert isinstance(ledger.reserve_now([Charge("t:a", "tokens", 1001, 1000, 60_000)]), Refusal)
    ledger.close()


def test_what_redis_holds_is_settled(redis_server: Any) -> None:
    url, _ = redis_server
    ledger = SharedLedger(url)
    question = [Charge("t:settle", "tokens", 100, 1000, 60_000)]
    receipts = [ledger.reserve_now(question), ledger.reserve_now(question)]
    assert all(isinstance(receipt, Receipt) for receipt in receipts)
    ledger.settle_later([entry for receipt in receipts for entry in receipt.entries], lambda _: 130)  # type: ignore[union-attr]
    ledger.close()
    ledger = SharedLedger(url)
    answer = ledger.reserve_now([Charge("t:settle", "tokens", 0, 1000, 60_000)])
    assert answer.levels[0].used == 130  # type: ignore[union-attr]
    ledger.close()


def reserved(ledger: SharedLedger, subject: str, window_ms: int = 60_000) -> Receipt:
    answer = ledger.reserve_now([Charge(subject, "tokens", 100, 1000, window_ms)])
    assert isinstance(answer, Receipt)
    return answer


def counted(url: str, subject: str) -> int:
    ledger = SharedLedger(url)
    answer = ledger.reserve_now([Charge(subject, "tokens", 0, 1000, 60_000)])
    ledger.close()
    assert isinstance(answer, Receipt)
    return answer.levels[0].used


def wait_for(state: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not state():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Unreliable:
    """The script that settles: what is asked, or what is answered, gets lost."""

    def __init__(self, ledger: SharedLedger, loses: str, times: int = 1) -> None:
        self.script, self.loses, self.times, self.asked = ledger._settle, loses, times, 0
        ledger._settle = self

    def __call__(self, **question: Any) -> None:
        self.asked += 1
        lost = self.asked <= self.times
        if not lost or self.loses == "the answer":
            self.script(**question)
        if lost:
            raise redis.TimeoutError


@pytest.mark.parametrize("loses", ["the question", "the answer"])
def test_a_settlement_that_fails_is_made_later_and_once(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch, loses: str
) -> None:
    monkeypatch.setattr(shared_module, "_PAUSE_SECONDS", 0.01)
    url, _ = redis_server
    subject = f"t:{loses}"
    ledger = SharedLedger(url)
    receipts = [reserved(ledger, subject) for _ in range(3)]
    script = Unreliable(ledger, loses)
    for receipt in receipts[:2]:  # one that fails, and one behind it
        ledger.settle_later(receipt.entries, lambda _: 30)
    wait_for(lambda: counted(url, subject) == 30 + 30 + 100)
    ledger.close()
    assert script.asked == 3
    assert counted(url, subject) == 30 + 30 + 100


def test_a_settlement_outlives_a_redis_that_stands_still(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis is asked meanwhile it does when it goes on, and it is asked again: it counts once."""
    url, process = redis_server
    with monkeypatch.context() as patch:
        patch.setattr(shared_module, "_TIMEOUT_SECONDS", 0.5)
        ledger = SharedLedger(url)
    receipts = [reserved(ledger, "t:still") for _ in range(3)]
    ledger.settle_later(receipts[0].entries, lambda _: 30)
    wait_for(lambda: counted(url, "t:still") == 30 + 100 + 100)
    process.send_signal(signal.SIGSTOP)
    try:
        ledger.settle_later(receipts[1].entries, lambda _: 30)
        wait_for(lambda: ledger._timer is not None)
    finally:
        process.send_signal(signal.SIGCONT)
    wait_for(lambda: counted(url, "t:still") == 30 + 30 + 100)
    ledger.close()
    assert counted(url, "t:still") == 30 + 30 + 100


def test_a_ledger_that_ends_settles_what_it_can(redis_server: Any) -> None:
    url, _ = redis_server
    ledger = SharedLedger(url)
    receipt = reserved(ledger, "t:end")
    Unreliable(ledger, "the question")
    ledger.settle_later(receipt.entries, lambda _: 30)
    ledger.close()
    assert counted(url, "t:end") == 30


def test_only_so_many_settlements_wait_and_the_oldest_is_given_up(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "_MOST_WAITING", 2)
    monkeypatch.setattr(shared_module, "_PAUSE_SECONDS", 60)
    url, _ = redis_server
    ledger = SharedLedger(url)
    receipts = [reserved(ledger, "t:many") for _ in range(5)]
    Unreliable(ledger, "the question")
    for receipt in receipts:
        ledger.settle_later(receipt.entries, lambda _: 30)
    ledger._threads.submit(lambda: None).result()
    assert ledger.problem is not None
    assert "3 requests stay counted" in ledger.problem
    assert isinstance(ledger.reserve_now([Charge("t:many", "tokens", 1, 1000, 60_000)]), Receipt)
    ledger.close()
    assert counted(url, "t:many") == 3 * 100 + 2 * 30 + 1


def test_what_has_left_its_window_is_not_settled(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_module, "_PAUSE_SECONDS", 0.01)
    ledger = SharedLedger(redis_server[0])
    receipt = reserved(ledger, "t:old", window_ms=59)
    Unreliable(ledger, "the question", times=10**9)
    ledger.settle_later(receipt.entries, lambda _: 30)
    ledger._threads.submit(lambda: None).result()
    wait_for(lambda: not ledger._waiting)
    assert ledger.problem is None
    ledger.close()


@pytest.mark.parametrize("where", ["redis", "local"])
def test_a_limit_that_is_more_than_full_is_told_and_takes_no_more(
    request: pytest.FixtureRequest, tmp_path: Path, where: str
) -> None:
    def ask(amount: int) -> Receipt | Refusal | None:
        charges = [Charge("t:over", "tokens", amount, 1000, 60_000)]
        return shared.reserve_now(charges) if shared else local.reserve(charges, int(time.time() * 1000))

    local = Ledger(tmp_path / "ledger")
    shared = SharedLedger(request.getfixturevalue("redis_server")[0]) if where == "redis" else None
    first = ask(900)
    assert isinstance(first, Receipt)
    (shared.settle_later if shared else local.settle)(first.entries, lambda _: 1200)
    deadline = time.monotonic() + 20
    while not isinstance(told := ask(0), Receipt) or told.levels[0].used != 1200:
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
    assert told.levels[0].remaining == 0
    assert isinstance(ask(1), Refusal)
    for ledger in (local, shared):
        if ledger is not None:
            ledger.close()


@pytest.mark.parametrize("policy", ["local", "deny"])
def test_without_redis_the_settings_decide(make_site: Any, policy: str) -> None:
    quotas = {
        "backend": "redis://127.0.0.1:1/0",
        "on_outage": policy,
        "tenants": {"acme": {"tokens_per_minute": 1000, "requests_per_minute": 2}},
    }
    site = make_site(quotas=quotas)
    engine(site)
    key, free = site.key(), site.key(tenant="free")
    statuses = [site.client.post(CHAT, json=body(), headers=bearer(key)).status_code for _ in range(3)]
    assert statuses == ([200, 200, 429] if policy == "local" else [503, 503, 503])
    assert site.client.post(CHAT, json=body(), headers=bearer(free)).status_code == 200
    assert site.access.status()["quotas"] == "Redis does not answer"


def test_a_site_counts_in_redis(make_site: Any, redis_server: Any) -> None:
    url, process = redis_server
    site = make_site(quotas={"backend": url, "tenants": {"acme": {"tokens_per_minute": 1000}}})
    engine(site, prompt=90, output=5)
    key = site.key()
    with site.client as client:  # one event loop for all, as in a server
        assert client.post(CHAT, json=body(words=1, max_tokens=10), headers=bearer(key)).status_code == 200
        deadline = time.monotonic() + 60
        while (now := used(site, key, "tokens_per_minute")) != 95:
            assert time.monotonic() < deadline, now
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert client.post(CHAT, json=body(), headers=bearer(key)).status_code == 200
