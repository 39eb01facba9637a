"""Counts in a file that all API server processes of a server map into their memory.

One lock (``flock``, which ends with the process that holds it) makes each step whole: either all of
several charges are counted, or none. No process waits for another longer than such a step takes.

The file is rows of 64 integers of 64 bits. The first one says how many rows there are and how often
they have been moved; each other one holds a window (see `window`) and the hash of its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vllm_vlinders.auth.quota.charge import Charge, Entry, Level, Receipt, Refusal, settled
from vllm_vlinders.auth.quota.window import (
    add,
    advance,
    buckets_until,
    buckets_until_empty,
    holds,
    total,
    width_of,
)
from vllm_vlinders.errors import SettingsError

_ROW = 64
_BYTES = _ROW * 8
_FIRST_ROWS = 16_384
_MOST_STARTS = 100_000
_MAGIC = 0x0153_524C_444E_4C56
_IS, _ROWS, _USED, _MOVES = range(4)
_HASH, _WIDTH, _WINDOW = 0, 2, 3


class Ledger:
    """The counts of one server.

    Args:
        path: the file; made if it is not there.

    Raises:
        SettingsError: it cannot be opened, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._rows: dict[tuple[int, int], int] = {}
        self._read = self._moves = 0
        self._starts: dict[tuple[str, str], int] = {}
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with _Lock(self._file):
                if not os.fstat(self._file).st_size:
                    self._resize(_FIRST_ROWS)
                    self._cells[_IS], self._cells[_USED] = _MAGIC, 1
                self._map()
        except (OSError, ValueError) as error:
            message = f"quotas: the file {path} cannot be used: {type(error).__name__}"
            raise SettingsError(message) from None
        if self._cells[_IS] != _MAGIC:
            raise SettingsError(f"quotas: {path} is not a file of this server's usage; name another one")

    def reserve(self, charges: Sequence[Charge], now_ms: int) -> Receipt | Refusal:
        """Count all `charges`, or, where one of them has no room, none; one of 0 needs no room."""
        if not charges:
            return Receipt((), ())
        with _Lock(self._file):
            self._catch_up()
            places = self._places(charges, now_ms)
            cells, after = self._cells, []
            for charge, (start, _) in zip(charges, places, strict=True):
                used = total(cells, start)
                if charge.amount and used + charge.amount > charge.most:
                    return Refusal(charge, used, self._wait(charge, start, used, now_ms))
                after.append(used + charge.amount)
            entries, levels = [], []
            for charge, (start, bucket), used in zip(charges, places, after, strict=True):
                if charge.amount:
                    add(cells, start, bucket, charge.amount)
                entries.append(Entry(charge, bucket))
                levels.append(self._level(charge, start, used))
        return Receipt(tuple(entries), tuple(levels))

    def settle(self, entries: Iterable[Entry], used: Callable[[Charge], int]) -> None:
        """Put what was really used in the place of what was counted.

        Args:
            entries: of one or several receipts.
            used: says, of all charges of one limit together, how much it was.
        """
        entries = tuple(entries)
        if not entries:
            return
        amounts, left = settled(entries, used)
        starts: dict[tuple[str, str], int] = {}
        with _Lock(self._file):
            self._catch_up()
            for (charge, bucket), kept in zip(entries, amounts, strict=True):
                name = charge.subject, charge.limit
                start = self._starts.get(name)
                if start is None:
                    row = self._rows.get(_hash(charge))
                    start = None if row is None else row * _ROW + _WINDOW
                if start is None:
                    continue  # nothing of it counts any more
                starts[name] = start
                if holds(self._cells, start, bucket):
                    add(self._cells, start, bucket, kept - charge.amount)
            for name, start in starts.items():
                add(self._cells, start, self._cells[start], left[name])

    def levels(self, charges: Sequence[Charge], now_ms: int) -> list[Level]:
        """Return how full the limits of `charges` are; nothing is counted."""
        with _Lock(self._file):
            self._catch_up()
            places = self._places(charges, now_ms)
            return [
                self._level(charge, start, total(self._cells, start))
                for charge, (start, _) in zip(charges, places, strict=True)
            ]

    def close(self) -> None:
        """Let go of the file."""
        self._cells.release()
        self._map_.close()
        os.close(self._file)

    def _level(self, charge: Charge, start: int, used: int) -> Level:
        if not used or not charge.window_ms:
            return Level(charge, used, 0)
        return Level(charge, used, buckets_until_empty(self._cells, start) * width_of(charge.window_ms))

    def _wait(self, charge: Charge, start: int, used: int, now_ms: int) -> int | None:
        if charge.amount > charge.most:
            return None
        if not charge.window_ms:
            return 1000  # when another request ends, nobody knows
        width = width_of(charge.window_ms)
        passed = buckets_until(self._cells, start, used + charge.amount - charge.most)
        return (self._cells[start] + passed) * width - now_ms

    def _places(self, charges: Sequence[Charge], now_ms: int) -> list[tuple[int, int]]:
        """Return the place of each charge; making one can move the others, so that is seen to first."""
        moves = None
        while moves != self._moves:
            moves = self._moves
            places = [self._place(charge, now_ms) for charge in charges]
        return places

    def _place(self, charge: Charge, now_ms: int) -> tuple[int, int]:
        """Return where the window of `charge` starts, brought up to now, and its newest bucket."""
        width = width_of(charge.window_ms)
        start = self._starts.get(charge[:2])
        if start is None:
            start = self._find(charge, width, now_ms)
        bucket = now_ms // width if width else 0
        newest = self._cells[start]
        return start, newest if newest >= bucket else advance(self._cells, start, bucket)

    def _find(self, charge: Charge, width: int, now_ms: int) -> int:
        """Return where the window of `charge` starts, from its row, which is made if there is none."""
        name = _hash(charge)
        row = self._rows.get(name)
        if row is None:
            row = self._new_row(name, width, now_ms)
        if len(self._starts) > _MOST_STARTS:
            self._starts.clear()
        start = self._starts[charge[:2]] = row * _ROW + _WINDOW
        return start

    def _catch_up(self) -> None:
        """Learn of the rows that other processes have made or moved."""
        cells = self._cells
        if cells[_MOVES] != self._moves or cells[_USED] != self._read:
            if cells[_ROWS] * _BYTES != len(self._map_):
                self._map()
                cells = self._cells
            if cells[_MOVES] != self._moves:
                self._rows.clear()
                self._starts.clear()
                self._read, self._moves = 1, cells[_MOVES]
            for row in range(max(1, self._read), cells[_USED]):
                at = row * _ROW + _HASH
                self._rows[cells[at], cells[at + 1]] = row
            self._read = cells[_USED]

    def _new_row(self, name: tuple[int, int], width: int, now_ms: int) -> int:
        if self._cells[_USED] == self._cells[_ROWS]:
            self._drop_old_rows(now_ms)
            if self._cells[_USED] > self._cells[_ROWS] // 2:
                self._resize(self._cells[_ROWS] * 2)
        row = self._cells[_USED]
        at = row * _ROW
        self._cells[at : at + _ROW] = memoryview(bytes(_BYTES)).cast("q")
        self._cells[at + _HASH], self._cells[at + _HASH + 1] = name
        self._cells[at + _WIDTH] = width
        self._cells[_USED] = self._read = row + 1
        self._rows[name] = row
        return row

    def _drop_old_rows(self, now_ms: int) -> None:
        """Close up over the rows of which nothing counts any more."""
        cells, kept = self._cells, 1
        for row in range(1, cells[_USED]):
            at = row * _ROW
            width, start = cells[at + _WIDTH], at + _WINDOW
            if width:
                advance(cells, start, now_ms // width)
            if total(cells, start):
                cells[kept * _ROW : (kept + 1) * _ROW] = cells[at : at + _ROW]
                kept += 1
        cells[_USED] = kept
        cells[_MOVES] += 1
        self._catch_up()

    def _resize(self, rows: int) -> None:
        os.ftruncate(self._file, rows * _BYTES)
        self._map()
        self._cells[_ROWS] = rows

    def _map(self) -> None:
        self._map_ = mmap.mmap(self._file, 0)
        self._cells = memoryview(self._map_).cast("q")


class _Lock:
    """The lock of an open file."""

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


def _hash(charge: Charge) -> tuple[int, int]:
    digest = hashlib.blake2b("\0".join(charge[:2]).encode(), digest_size=16).digest()
    return (
        int.from_bytes(digest[:8], "big", signed=True),
        int.from_bytes(digest[8:], "big", signed=True),
    )
