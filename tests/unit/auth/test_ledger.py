"""No window ever holds more than its limit, whoever adds to it and in whatever order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vllm_vlinders.auth.quota import ledger as ledger_module
from vllm_vlinders.auth.quota.charge import Charge, Receipt, Refusal
from vllm_vlinders.auth.quota.ledger import Ledger
from vllm_vlinders.auth.quota.window import width_of
from vllm_vlinders.errors import SettingsError

START = 1_800_000_000_000


def charge(subject: str, amount: int, most: int, window_ms: int = 60_000, limit: str = "tokens") -> Charge:
    return Charge(subject, limit, amount, most, window_ms)


class Interleavings(RuleBasedStateMachine):
    """Three processes' ledgers on one file, two subjects with limits of their own, any order of steps."""

    MOST = {"a": 100, "b": 37}
    WINDOW = 60_000

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "ledger"
        self.ledgers = [Ledger(path) for _ in range(3)]
        self.now = START
        self.open: list[tuple[Receipt, int]] = []
        self.events: list[dict[str, Any]] = []

    @rule(seconds=st.floats(0, 40))
    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * 1000)

    @rule(at=st.integers(0, 2), amounts=st.tuples(st.integers(0, 60), st.integers(0, 60)), both=st.booleans())
    def reserve(self, at: int, amounts: tuple[int, int], both: bool) -> None:
        charges = [
            charge(subject, amount, self.MOST[subject], self.WINDOW)
            for subject, amount in zip("ab", amounts, strict=True)
        ][: 2 if both else 1]
        before = [level.used for level in self.ledgers[at].levels(charges, self.now)]
        answer = self.ledgers[at].reserve(charges, self.now)
        if isinstance(answer, Refusal):
            after = [level.used for level in self.ledgers[at].levels(charges, self.now)]
            assert before == after
            assert answer.used + answer.charge.amount > answer.charge.most
            return
        self.open.append((answer, self.now))
        self.events.append({"at": self.now, "amounts": {c.subject: c.amount for c in charges}})

    @rule(at=st.integers(0, 2), which=st.integers(0, 20), share=st.floats(0, 1))
    def settle(self, at: int, which: int, share: float) -> None:
        if not self.open:
            return
        index = which % len(self.open)
        receipt, reserved_at = self.open.pop(index)
        used = {entry.charge.subject: int(entry.charge.amount * share) for entry in receipt.entries}
        self.ledgers[at].settle(receipt.entries, lambda c: used[c.subject])
        event = next(e for e in self.events if e["at"] == reserved_at and not e.get("settled")
                     and e["amounts"] == {x.charge.subject: x.charge.amount for x in receipt.entries})  # fmt: skip
        event["settled"], event["amounts"] = True, used

    @invariant()
    def no_window_is_ever_above_its_limit(self) -> None:
        for subject, most in self.MOST.items():
            for last in self.events:
                inside = [e for e in self.events if last["at"] - self.WINDOW < e["at"] <= last["at"]]
                assert sum(e["amounts"].get(subject, 0) for e in inside) <= most

    @invariant()
    def nothing_is_counted_that_was_not_asked(self) -> None:
        for subject, most in self.MOST.items():
            (level,) = self.ledgers[0].levels([charge(subject, 0, most, self.WINDOW)], self.now)
            span = 60 * width_of(self.WINDOW)
            recent = sum(e["amounts"].get(subject, 0) for e in self.events if e["at"] > self.now - span)
            assert level.used <= recent

    def teardown(self) -> None:
        if hasattr(self, "ledgers"):
            for receipt, _ in self.open:
                self.ledgers[1].settle(receipt.entries, lambda _: 0)
            settled = sum(e["amounts"].get("a", 0) for e in self.events if e.get("settled"))
            (level,) = self.ledgers[0].levels([charge("a", 0, 100, self.WINDOW)], self.now)
            assert level.used <= settled
            (level,) = self.ledgers[2].levels([charge("a", 0, 100, self.WINDOW)], self.now + 62_000)
            assert level.used == 0
            for each in self.ledgers:
                each.close()
            self.folder.cleanup()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "ledger"  # type: ignore[return-value]


def hammer(path: Path, queue: Any, until: float) -> None:
    ledger, admitted = Ledger(path), 0
    while time.monotonic() < until:
        answer = ledger.reserve([charge("a", 3, 10_000), charge("b", 1, 2_500)], START)
        if isinstance(answer, Refusal):
            break
        admitted += 1
        if admitted % 3 == 0:
            ledger.settle(answer.entries, lambda c: c.amount - 1)
    queue.put(admitted)


def test_processes_together_admit_exactly_the_limit(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    until = time.monotonic() + 60
    workers = [context.Process(target=hammer, args=(path, queue, until)) for _ in range(4)]
    for worker in workers:
        worker.start()
    admitted = sum(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    ledger = Ledger(path)
    a, b = ledger.levels([charge("a", 0, 10_000), charge("b", 0, 2_500)], START)
    assert a.used <= 10_000
    assert b.used <= 2_500
    assert max(a.used + 3 - 10_000, b.used + 1 - 2_500) > 0  # full, as it was refused
    assert admitted >= 2_500


def test_a_process_that_is_killed_leaves_no_lock(path: Path) -> None:
    ledger = Ledger(path)

    def die() -> None:
        other = Ledger(path)
        with ledger_module._Lock(other._file):
            os.kill(os.getpid(), signal.SIGKILL)

    worker = multiprocessing.get_context("fork").Process(target=die)
    worker.start()
    worker.join(10)
    assert isinstance(ledger.reserve([charge("a", 1, 1)], START), Receipt)


def test_the_refusal_says_when_there_will_be_room(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve([charge("a", 60, 100)], START)
    ledger.reserve([charge("a", 40, 100)], START + 20_000)
    refusal = ledger.reserve([charge("a", 50, 100)], START + 30_000)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_ms is not None
    assert 30_000 <= refusal.wait_ms <= 32_000
    assert isinstance(ledger.reserve([charge("a", 50, 100)], START + 30_000 + refusal.wait_ms - 1), Refusal)
    assert isinstance(ledger.reserve([charge("a", 50, 100)], START + 30_000 + refusal.wait_ms), Receipt)
    never = ledger.reserve([charge("a", 101, 100)], START)
    assert isinstance(never, Refusal)
    assert never.wait_ms is None


def test_more_used_than_reserved_is_counted_all_the_same(path: Path) -> None:
    ledger = Ledger(path)
    receipt = ledger.reserve([charge("a", 10, 100)], START)
    ledger.settle(receipt.entries, lambda _: 25)  # type: ignore[union-attr]
    assert ledger.levels([charge("a", 0, 100)], START)[0].used == 25


@given(st.integers(1, 31 * 86_400_000))
def test_sixty_buckets_less_one_hold_a_window(window_ms: int) -> None:
    assert 59 * width_of(window_ms) >= window_ms


def test_many_names_grow_the_file_and_old_ones_make_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_FIRST_ROWS", 16)
    first, second = Ledger(path), Ledger(path)
    for number in range(200):
        charges = [charge(f"s{number}", 1, 5), charge(f"t{number}", 1, 5)]
        assert isinstance((first, second)[number % 2].reserve(charges, START), Receipt)
    for number in range(200):
        (level,) = first.levels([charge(f"t{number}", 0, 5)], START)
        assert level.used == 1
    size = path.stat().st_size
    for number in range(500):
        later = START + 70_000 * (number + 1)
        assert isinstance(second.reserve([charge(f"later{number}", 5, 5)], later), Receipt)
        assert isinstance(first.reserve([charge(f"later{number}", 1, 5)], later), Refusal)
    assert path.stat().st_size == size


def test_usage_outlives_the_server_where_the_file_does(path: Path) -> None:
    Ledger(path).reserve([charge("a", 7, 10)], START)
    assert Ledger(path).levels([charge("a", 0, 10)], START)[0].used == 7


def test_a_clock_that_is_set_back_gives_no_room(path: Path) -> None:
    ledger = Ledger(path)
    ledger.reserve([charge("a", 10, 10)], START)
    assert isinstance(ledger.reserve([charge("a", 1, 10)], START - 3_600_000), Refusal)
    assert isinstance(ledger.reserve([charge("a", 1, 10)], START + 62_000), Receipt)


def test_some_other_file_is_left_alone(path: Path) -> None:
    path.write_bytes(b"x" * 1024)
    with pytest.raises(SettingsError, match="not a file of this server's usage"):
        Ledger(path)
    assert path.read_bytes() == b"x" * 1024
