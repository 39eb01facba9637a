"""Counts in Redis, which several servers share: the windows of `window`, kept by atomic scripts.

The scripts take the time from Redis, so that the servers' clocks need not agree. A request is never
held up for longer than a timeout: while Redis does not answer, the caller is told so at once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from vllm_vlinders.auth.quota.charge import Charge, Entry, Level, Receipt, Refusal
from vllm_vlinders.auth.quota.window import width_of
from vllm_vlinders.errors import SettingsError

_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
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
for i, key in ipairs(KEYS) do
  local bucket, change = ARGV[2*i-1], ARGV[2*i]
  if redis.call('HEXISTS', key, bucket) == 1 and redis.call('HINCRBY', key, bucket, change) < 0 then
    redis.call('HSET', key, bucket, 0)
  end
end
"""


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

    @property
    def problem(self) -> str | None:
        """What is wrong, while Redis does not answer."""
        return "Redis does not answer" if time.monotonic() < self._pause_until else None

    async def reserve(self, charges: Sequence[Charge]) -> Receipt | Refusal | None:
        """Count all `charges` or none; None: Redis does not answer."""
        if not charges:
            return Receipt((), ())
        if self.problem:
            return None
        try:
            return _read(charges, await self._reserve(**_question(charges)))
        except (self._error, OSError, TimeoutError):
            self._pause()
            return None

    def reserve_now(self, charges: Sequence[Charge]) -> Receipt | Refusal | None:
        """As `reserve`, holding up the event loop meanwhile: for the rare case of a low estimate."""
        if self.problem:
            return None
        try:
            return _read(charges, self._reserve_now(**_question(charges)))
        except (self._error, OSError, TimeoutError):
            self._pause()
            return None

    def settle_later(self, entries: Iterable[Entry], used: Callable[[Charge], int]) -> None:
        """Put what was really used in the place of what was counted, in a thread."""
        left: dict[tuple[str, str], int] = {}
        changes: dict[tuple[str, int], int] = {}
        last: dict[tuple[str, str], tuple[str, int]] = {}
        for entry in entries:
            charge = entry.charge
            name = charge.subject, charge.limit
            owed = left.setdefault(name, used(charge))
            kept = min(owed, charge.amount)
            left[name] = owed - kept
            last[name] = place = _key(charge), entry.bucket
            changes[place] = changes.get(place, 0) + kept - charge.amount
        for name, place in last.items():
            changes[place] += left[name]
        keys = [key for key, _ in changes]
        args = [part for (_, bucket), change in changes.items() for part in (bucket, change)]
        self._threads.submit(self._settle_quietly, keys, args)

    def close(self) -> None:
        """Settle what is still to be settled, and let go of the connections."""
        self._threads.shutdown()
        self._direct.close()

    def _settle_quietly(self, keys: list[str], args: list[int]) -> None:
        with suppress(self._error, OSError, TimeoutError):  # it stays counted until the window has passed
            self._settle(keys=keys, args=args)

    def _pause(self) -> None:
        self._pause_until = time.monotonic() + _PAUSE_SECONDS


def _key(charge: Charge) -> str:
    name = f"{charge.subject}\0{charge.limit}".encode()
    return f"{{vlinders}}:quota:{hashlib.blake2b(name, digest_size=16).hexdigest()}"


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
