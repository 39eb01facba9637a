"""Counts in Redis, which several servers share: the windows of `window`, kept by atomic scripts.

The scripts take the time from Redis, so that the servers' clocks need not agree. A request is never
held up for longer than a timeout: while Redis does not answer, the caller is told so at once.

What has been used is put in the place of what was reserved exactly once, though answers of Redis can get
lost: each ledger numbers its settlements and sends them one after the other, and Redis keeps the number
of the last one beside the counts, so that it leaves alone what it has done already. A reservation whose
answer is lost is not asked for again: if it was counted, it stays so until its window has passed. In no
case is more admitted than the limit.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Timer
from typing import Any, NamedTuple
from uuid import uuid4

from vllm_vlinders.auth.quota.charge import Charge, Entry, Level, Receipt, Refusal, settled
from vllm_vlinders.auth.quota.window import width_of
from vllm_vlinders.errors import SettingsError

_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_MOST_WAITING = 10_000
_BUCKETS_KEPT = 61
_NUMBER_KEPT_MS = 32 * 86_400_000
"""Longer than the buckets of the longest window."""
_RESERVE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local answer, live = {1}, {}
for i, key in ipairs(KEYS) do
  local amount, most, width = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  local newest, used, kept, all = math.floor(now / width), 0, {}, redis.call('HGETALL', key)
  for j = 1, #all, 2 do
    local bucket, count = tonumber(all[j]), tonumber(all[j+1])
    if bucket <= newest - 60 or count == 0 then
      redis.call('HDEL', key, all[j])
    else
      used = used + count
      table.insert(kept, {bucket, count})
    end
  end
  table.sort(kept, function(a, b) return a[1] < b[1] end)
  if amount > 0 and used + amount > most then
    local excess, wait = used + amount - most, -1
    for _, entry in ipairs(kept) do
      excess = excess - entry[2]
      if excess <= 0 then wait = (entry[1] + 60) * width - now; break end
    end
    return {0, i, string.format('%.0f', used), wait}
  end
  local last = amount > 0 and newest or (#kept > 0 and kept[#kept][1])
  live[i] = {newest, string.format('%.0f', used + amount), last and (last + 60) * width - now or 0}
end
for i, key in ipairs(KEYS) do
  if tonumber(ARGV[3*i-2]) > 0 then
    redis.call('HINCRBY', key, string.format('%.0f', live[i][1]), ARGV[3*i-2])
    redis.call('PEXPIRE', key, 61 * ARGV[3*i])
  end
  for _, value in ipairs(live[i]) do table.insert(answer, value) end
end
return answer
"""
_SETTLE = """
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then return end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 2, #KEYS do
  local key, bucket, change = KEYS[i], ARGV[2*i-1], ARGV[2*i]
  if redis.call('HEXISTS', key, bucket) == 1 and redis.call('HINCRBY', key, bucket, change) < 0 then
    redis.call('HSET', key, bucket, 0)
  end
end
"""


class _Settlement(NamedTuple):
    """What is to be changed in Redis.

    Attributes:
        keys: of the counts.
        args: for each of them a bucket, and by how much it changes.
        ends: the moment (of ``time.monotonic``) from which nothing of it is in a window any more.
    """

    keys: list[str]
    args: list[int]
    ends: float


class SharedLedger:
    """The counts of several servers.

    Args:
        url: of Redis.

    Raises:
        SettingsError: the client is not installed, or the URL is none.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
            import redis.asyncio

            options: Any = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
            self._direct: Any = redis.Redis.from_url(url, **options)
            self._awaited: Any = redis.asyncio.Redis.from_url(url, **options)
        except ImportError:
            message = "quotas.backend: redis is not installed: pip install 'vllm-vlinders[redis]'"
            raise SettingsError(message) from None
        except ValueError:
            raise SettingsError("quotas.backend: not a URL of Redis, such as redis://host:6379/0") from None
        self._error: type[Exception] = redis.RedisError
        self._reserve = self._awaited.register_script(_RESERVE)
        self._reserve_now = self._direct.register_script(_RESERVE)
        self._settle = self._direct.register_script(_SETTLE)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="vlinders-quotas")
        self._pause_until = 0.0
        self._name, self._numbers = _named(f"settled\0{uuid4()}"), count(1)
        self._waiting: deque[tuple[int, _Settlement]] = deque()  # changed by the thread alone, as all below
        self._timer: Timer | None = None
        self._given_up, self._counted_until = 0, 0.0

    @property
    def problem(self) -> str | None:
        """What is wrong: Redis does not answer, or has not for so long that settlements were given up."""
        if self._pauses():
            return "Redis does not answer"
        if time.monotonic() < self._counted_until:
            return (
                f"Redis was away for too long: {self._given_up} requests stay counted with all they reserved"
            )
        return None

    async def reserve(self, charges: Sequence[Charge]) -> Receipt | Refusal | None:
        """Count all `charges` or none; None: Redis does not answer."""
        if not charges:
            return Receipt((), ())
        if self._pauses():
            return None
        try:
            return _read(charges, await self._reserve(**_question(charges)))
        except (self._error, OSError, TimeoutError):
            self._pause()
            return None

    def reserve_now(self, charges: Sequence[Charge]) -> Receipt | Refusal | None:
        """As `reserve`, holding up the event loop meanwhile: for the rare case of a low estimate."""
        if self._pauses():
            return None
        try:
            return _read(charges, self._reserve_now(**_question(charges)))
        except (self._error, OSError, TimeoutError):
            self._pause()
            return None

    def settle_later(self, entries: Iterable[Entry], used: Callable[[Charge], int]) -> None:
        """Put what was really used in the place of what was counted, in a thread, once Redis answers.

        Only so many wait for that, and none for longer than its windows last; beyond, the oldest is given up:
        it stays counted until its windows have passed, and `problem` says so.
        """
        self._threads.submit(self._add, _settlement(entries, used))

    def close(self) -> None:
        """Settle what can be settled, and let go of the connections."""
        self._submit_settling()
        self._threads.shutdown()
        self._direct.close()

    def _add(self, settlement: _Settlement) -> None:
        self._waiting.append((next(self._numbers), settlement))
        if len(self._waiting) > _MOST_WAITING:
            self._give_up(self._waiting.popleft()[1])
        if self._timer is None:
            self._settle_waiting()

    def _settle_waiting(self) -> None:
        """Settle, the oldest first; where Redis does not answer, go on after a pause."""
        self._timer = None
        while self._waiting:
            number, settlement = self._waiting[0]
            if time.monotonic() < settlement.ends and not self._settles(number, settlement):
                self._timer = Timer(_PAUSE_SECONDS, self._submit_settling)
                self._timer.daemon = True
                self._timer.start()
                return
            self._waiting.popleft()

    def _settles(self, number: int, settlement: _Settlement) -> bool:
        """Ask Redis to settle; return whether it has answered."""
        try:
            self._settle(
                keys=[self._name, *settlement.keys], args=[number, _NUMBER_KEPT_MS, *settlement.args]
            )
        except (self._error, OSError, TimeoutError):
            return False
        return True

    def _give_up(self, settlement: _Settlement) -> None:
        """Note that nobody will settle this; what has left its windows needs no settling."""
        now = time.monotonic()
        if now < settlement.ends:
            self._given_up = 1 + (self._given_up if now < self._counted_until else 0)
            self._counted_until = max(self._counted_until, settlement.ends)

    def _submit_settling(self) -> None:
        with suppress(RuntimeError):  # it has been closed
            self._threads.submit(self._settle_waiting)

    def _pauses(self) -> bool:
        return time.monotonic() < self._pause_until

    def _pause(self) -> None:
        self._pause_until = time.monotonic() + _PAUSE_SECONDS


def _key(charge: Charge) -> str:
    return _named(f"{charge.subject}\0{charge.limit}")


def _named(name: str) -> str:
    return f"{{vlinders}}:quota:{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"


def _settlement(entries: Iterable[Entry], used: Callable[[Charge], int]) -> _Settlement:
    entries = tuple(entries)
    amounts, left = settled(entries, used)
    changes: Counter[tuple[str, int]] = Counter()
    last: dict[tuple[str, str], tuple[str, int]] = {}
    lasts = 0
    for (charge, bucket), kept in zip(entries, amounts, strict=True):
        last[charge.subject, charge.limit] = place = _key(charge), bucket
        changes[place] += kept - charge.amount
        lasts = max(lasts, _BUCKETS_KEPT * width_of(charge.window_ms))
    for name, place in last.items():
        changes[place] += left[name]
    args = [part for (_, bucket), change in changes.items() for part in (bucket, change)]
    return _Settlement([key for key, _ in changes], args, time.monotonic() + lasts / 1000)


def _question(charges: Sequence[Charge]) -> dict[str, Any]:
    args = [part for c in charges for part in (c.amount, c.most, width_of(c.window_ms))]
    return {"keys": [_key(charge) for charge in charges], "args": args}


def _read(charges: Sequence[Charge], answer: list[Any]) -> Receipt | Refusal:
    if not answer[0]:
        charge, wait = charges[answer[1] - 1], int(answer[3])
        return Refusal(charge, int(answer[2]), wait if wait >= 0 else None)
    entries, levels = [], []
    for charge, place in zip(charges, range(1, len(answer), 3), strict=True):
        bucket, used, reset = answer[place : place + 3]
        entries.append(Entry(charge, int(bucket)))
        levels.append(Level(charge, int(used), int(reset)))
    return Receipt(tuple(entries), tuple(levels))
