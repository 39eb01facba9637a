"""A queue of free KV blocks in which those of live sessions come last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from vllm_vlinders.sessions.retention import Retention


class SessionQueue:
    """Stands in the place of vLLM's queue of free blocks, which holds the ordinary ones.

    A kept block that no request uses is free, and counted so: whoever asks how many there are gets the
    answer of stock vLLM. Methods and attributes are those of ``FreeKVCacheBlockQueue``.

    Args:
        ordinary: vLLM's queue.
        retention: holds the others.
        clock: returns seconds.
    """

    def __init__(
        self, ordinary: Any, retention: Retention, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ordinary = ordinary
        self.fake_free_list_head = ordinary.fake_free_list_head
        self.fake_free_list_tail = ordinary.fake_free_list_tail
        self.retention = retention
        self._clock = clock

    @property
    def num_free_blocks(self) -> int:
        """How many blocks are free, kept or not."""
        ordinary: int = self.ordinary.num_free_blocks
        return ordinary + len(self.retention.idle)

    def popleft(self) -> Any:
        """Hand out the first block, a kept one if there is no other."""
        self._provide(1)
        return self.ordinary.popleft()

    def popleft_n(self, n: int) -> Any:
        """Hand out the first `n` blocks, kept ones if there are no others."""
        if self.retention.idle:
            self._provide(n)
        return self.ordinary.popleft_n(n)

    def remove(self, block: Any) -> None:
        """Hand out `block`."""
        if not self.retention.take(block):
            self.ordinary.remove(block)

    def append(self, block: Any) -> None:
        """Take back `block`."""
        self.append_n([block])

    def append_n(self, blocks: list[Any]) -> None:
        """Take back blocks that may be asked for again, behind all others."""
        retention = self.retention
        if not retention.held:
            self.ordinary.append_n(blocks)
            return
        others = []
        for block in blocks:
            if retention.holds(block):
                retention.park(block)
            else:
                others.append(block)
        self.ordinary.append_n(others)

    def prepend_n(self, blocks: list[Any]) -> None:
        """Take back blocks without content, before all others: one that is held has lost it."""
        if self.retention.held:
            for block in blocks:
                if self.retention.holds(block):
                    self.ordinary.append_n(self.retention.lose(block))
        self.ordinary.prepend_n(blocks)

    def keep(self, name: str, tenant: str, blocks: list[Any]) -> None:
        """Keep the `blocks` of a session's request that has ended; see `Retention.keep`."""
        self.ordinary.append_n(self.retention.keep(name, tenant, blocks, self._clock()))

    def clear(self) -> None:
        """Keep nothing any more."""
        self.ordinary.append_n(self.retention.clear())

    def get_all_free_blocks(self) -> list[Any]:
        """Return all free blocks, the kept ones at the end."""
        return [*self.ordinary.get_all_free_blocks(), *self.retention.idle.values()]

    def iter_blocks_after(self, cursor: Any) -> Iterator[Any]:
        """Iterate over the ordinary blocks behind `cursor`: what offloading copies before it is evicted."""
        if cursor is not None and cursor.block_id in self.retention.idle:
            cursor = None
        blocks: Iterator[Any] = self.ordinary.iter_blocks_after(cursor)
        return blocks

    def _provide(self, number: int) -> None:
        """See to it that `number` ordinary blocks are there, if so many are free.

        What is kept no longer stands behind the ordinary blocks, as if it had just been used: a session
        never fares worse than without retention.
        """
        if not self.retention.idle:
            return
        self.ordinary.append_n(self.retention.expire(self._clock()))
        lacking = number - self.ordinary.num_free_blocks
        if lacking > 0:
            self.ordinary.append_n(self.retention.surrender(lacking))
