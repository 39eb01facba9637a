"""The usage ledger: nothing is lost but by kill -9, and then it is known how much."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from vllm_vlinders.errors import StoreError
from vllm_vlinders.usage.entry import Amounts, Key
from vllm_vlinders.usage.journal import Counted, leftovers
from vllm_vlinders.usage.ledger import FLUSH_SECONDS, UsageLedger
from vllm_vlinders.usage.store import JOURNALS, UsageStore

ROOT = Path(__file__).parents[3]
NOON = 1_795_262_400.0  # 2026-11-21
ALL = ("2000-01-01", "2100-01-01")
ONE = Amounts(1, 100, 40, 7, 0.25)
WRITER = """
import sys, time
from pathlib import Path
from vllm_vlinders.usage.entry import Amounts
from vllm_vlinders.usage.ledger import UsageLedger
from vllm_vlinders.usage.store import UsageStore

url, folder, tenant, number = sys.argv[1:]
ledger = UsageLedger(lambda: UsageStore(url), Path(folder), print, lambda n: None)
ledger.start()
for count in range(int(number)):
    ledger.add(tenant, "m", Amounts(1, 100, 40, 7, 0.25))
    if count % 200 == 0:
        print(count, flush=True)
        time.sleep(0.01)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from vllm_vlinders.usage.journal import Journal

Journal(Path(sys.argv[1])).count(3, 321)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/usage.db?timeout=60"
    address: str = request.getfixturevalue("postgresql")
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        for name in ("usage", "usage_journals", "usage_losses"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS vlinders_{name}"))
    engine.dispose()
    return address


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def make(url: str, tmp_path: Path, told: list[Any]) -> Callable[..., UsageLedger]:
    def ledger(open_store: Any = None, clock: Any = lambda: NOON) -> UsageLedger:
        opened = open_store or (lambda: UsageStore(url))
        return UsageLedger(opened, tmp_path / "journals", told.append, told.append, clock)

    return ledger


def test_what_is_counted_is_stored_by_day_tenant_and_model(make: Any, url: str) -> None:
    moments = [NOON, NOON, NOON, NOON + 86_400]
    ledger = make(clock=lambda: moments.pop(0))
    for tenant, model in (("a", "m"), ("a", "m"), ("b", "m"), ("a", "n")):
        ledger.add(tenant, model, ONE)
    ledger.stop()

    store = UsageStore(url)
    assert store.read(*ALL) == {
        Key("2026-11-21", "a", "m"): Amounts(2, 200, 80, 14, 0.5),
        Key("2026-11-21", "b", "m"): ONE,
        Key("2026-11-22", "a", "n"): ONE,
    }
    assert list(store.read(*ALL, tenant="b")) == [Key("2026-11-21", "b", "m")]
    assert store.read("2026-11-22", "2026-11-30").keys() == {Key("2026-11-22", "a", "n")}
    assert store.lost(*ALL) == Counted()


def test_processes_that_write_at_once_add_up(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, url, str(tmp_path / "journals"), "a", "3000"]
    writers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]

    store = UsageStore(url)
    (found,) = store.read(*ALL).values()
    assert found == Amounts(9000, 900_000, 360_000, 63_000, 2250.0)
    assert store.lost(*ALL) == Counted()
    assert not list((tmp_path / "journals").iterdir())
    with store._database.transaction(write=False) as connection:
        assert not connection.execute(sa.select(JOURNALS)).all()


def test_what_a_killed_process_lost_is_known(url: str, tmp_path: Path, make: Any, told: list[Any]) -> None:
    command = [sys.executable, "-c", WRITER, url, str(tmp_path / "journals"), "a", "100000000"]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    store, deadline = UsageStore(url), time.monotonic() + 60
    while not store.read(*ALL) and time.monotonic() < deadline:
        time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    printed, _ = writer.communicate()
    (journal,) = (tmp_path / "journals").glob("*.journal")
    stored = sum(row.requests for row in store.read(*ALL).values())
    assert stored > 0

    ledger = make()
    ledger.start()
    while not told and time.monotonic() < deadline:
        time.sleep(0.05)
    ledger.stop()

    lost = store.lost(*ALL)
    assert not journal.exists()
    assert stored + lost.requests >= int(printed.split()[-1]), (
        "all that was counted is stored or known as lost"
    )
    assert sum(row.requests for row in store.read(*ALL).values()) == stored
    assert lost.tokens == lost.requests * 107
    assert told == [lost.requests]


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that counted three requests and stored none; the next one hurries."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "journals")], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    monkeypatch.setattr("vllm_vlinders.usage.ledger.FLUSH_SECONDS", 0.01)


def test_losses_are_counted_once_the_store_answers(
    killed: None, make: Any, url: str, tmp_path: Path, told: list[Any]
) -> None:
    stores: Iterator[UsageStore | None] = iter([None, None, UsageStore(url)])

    def open_store() -> UsageStore:
        store = next(stores)
        if store is None:
            raise StoreError("down")
        return store

    ledger = make(open_store)
    ledger.start()
    deadline = time.monotonic() + 30
    while None not in told and time.monotonic() < deadline:
        time.sleep(0.01)
    ledger.stop()

    assert told == ["down", 3, None]
    assert UsageStore(url).lost(*ALL) == Counted(3, 321)
    assert not list((tmp_path / "journals").iterdir())


def test_losses_count_once_where_the_journal_cannot_be_removed(
    killed: None, make: Any, url: str, told: list[Any]
) -> None:
    ledger = make()
    with pytest.MonkeyPatch.context() as patch:
        refused = Mock(side_effect=PermissionError)
        patch.setattr(Path, "unlink", refused)
        ledger.start()
        deadline = time.monotonic() + 60
        while not refused.called:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    ledger.stop()
    make().start()
    deadline = time.monotonic() + 30
    while len(told) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert told == [3, 0]
    assert UsageStore(url).lost(*ALL) == Counted(3, 321)


def test_the_journal_of_a_living_process_is_left_alone(make: Any, tmp_path: Path) -> None:
    ledger = make()
    ledger.add("a", "m", ONE)

    assert list(leftovers(tmp_path / "journals")) == []
    ledger.stop()


def test_a_store_that_is_down_is_waited_for(make: Any, url: str, told: list[Any]) -> None:
    answers = iter([StoreError("down"), StoreError("down"), None])

    def open_store() -> UsageStore:
        problem = next(answers)
        if problem is not None:
            raise problem
        return UsageStore(url)

    ledger = make(open_store)
    ledger.add("a", "m", ONE)
    assert not ledger.flush()
    ledger.add("a", "m", ONE)
    assert not ledger.flush()
    ledger.add("b", "m", ONE)
    assert ledger.flush()
    ledger.stop()

    assert UsageStore(url).read(*ALL) == {
        Key("2026-11-21", "a", "m"): Amounts(2, 200, 80, 14, 0.5),
        Key("2026-11-21", "b", "m"): ONE,
    }
    assert [each for each in told if not isinstance(each, int)] == ["down", None]


def test_what_is_stored_counts_once_where_the_answer_is_lost(make: Any, url: str, told: list[Any]) -> None:
    class Unlucky(UsageStore):
        unlucky = True

        def add(self, *batch: Any, **options: Any) -> None:
            super().add(*batch, **options)
            if Unlucky.unlucky:
                Unlucky.unlucky = False
                raise StoreError("the connection is lost")

    ledger = make(lambda: Unlucky(url))
    ledger.add("a", "m", ONE)
    assert not ledger.flush()
    ledger.add("a", "m", ONE)
    assert ledger.flush()
    ledger.stop()

    assert UsageStore(url).read(*ALL) == {Key("2026-11-21", "a", "m"): Amounts(2, 200, 80, 14, 0.5)}
    assert told == ["the connection is lost", None, 0, 0]


def test_a_store_that_says_nothing_holds_nobody_up(
    make: Any, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_vlinders.usage.ledger.PATIENCE_SECONDS", 0.05)
    asked, ended = threading.Event(), threading.Event()

    def say_nothing() -> UsageStore:
        asked.set()
        ended.wait()
        raise StoreError("gone")

    ledger = make(say_nothing)
    ledger.start()
    assert asked.wait(60)
    time.sleep(0.1)
    ledger.add("a", "m", ONE)
    assert len(told) == 1
    with pytest.raises(StoreError, match="not answered"):
        ledger.read(*ALL, None)
    ledger.stop()
    ended.set()


def test_memory_is_bounded_while_the_store_is_down(
    make: Any, url: str, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_vlinders.usage.ledger._MOST_LINES", 5)
    ledger = make()
    for number in range(8):
        ledger.add(f"t{number}", "m", ONE)
    ledger.add("t0", "m", ONE)
    ledger.stop()

    store = UsageStore(url)
    assert len(store.read(*ALL)) == 5
    assert store.lost(*ALL) == Counted(3, 321)
    assert told == [3]


def test_it_is_written_often_enough() -> None:
    assert FLUSH_SECONDS <= 0.5, "with the time that writing takes, at most a second is lost"
