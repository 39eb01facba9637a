"""vLLM's own block pool with kept blocks, beside an untouched one that gets the same requests."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any

import pytest

from vllm_vlinders.patches.scheduling_room import lacks_blocks
from vllm_vlinders.patches.session_blocks import install_queue, keep, release
from vllm_vlinders.scheduling.tags import SessionTag
from vllm_vlinders.sessions.queue import SessionQueue
from vllm_vlinders.settings import active_settings

pytest.importorskip("vllm")
BLOCK, BLOCKS = 16, 64
_ids = count()


def make_manager(*, caching: bool = True, window: int | None = None, groups: int = 1) -> Any:
    import torch
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.kv_cache_interface import (
        FullAttentionSpec,
        KVCacheConfig,
        KVCacheGroupSpec,
        SlidingWindowSpec,
    )

    sizes = {"block_size": BLOCK, "num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    spec = FullAttentionSpec(**sizes, sliding_window=window)
    others = [SlidingWindowSpec(**sizes, sliding_window=64)] * (groups - 1)
    config = KVCacheConfig(
        num_blocks=BLOCKS,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec([f"layer{n}"], s) for n, s in enumerate([spec, *others])],
    )
    manager = KVCacheManager(
        config,
        max_model_len=4096,
        scheduler_block_size=BLOCK,
        hash_block_size=BLOCK,
        enable_caching=caching,
    )
    install_queue(manager)
    return manager


@cache
def seed_hashes() -> None:
    """Once: up to some release each call draws another seed."""
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import init_none_hash

    init_none_hash(sha256)


def make_request(tokens: list[int], session: str | None = None) -> Any:
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.request import Request

    seed_hashes()
    request = Request(
        request_id=f"r{next(_ids)}",
        prompt_token_ids=tokens,
        sampling_params=SamplingParams(max_tokens=17),
        pooling_params=None,
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )
    if session is not None:
        request.vlinders_session = SessionTag(session, "t")
    return request


@dataclass
class Run:
    """One manager, what runs in it, and blocks that a step under way still uses."""

    manager: Any
    running: dict[int, Any] = field(default_factory=dict)
    deferred: list[Any] = field(default_factory=list)
    hit_tokens: int = 0

    @property
    def free(self) -> int:
        return int(self.manager.block_pool.get_num_free_blocks())

    def start(self, key: int, tokens: list[int], session: str | None) -> bool:
        request = make_request(tokens, session)
        blocks, hits = self.manager.get_computed_blocks(request)[:2]
        if self.manager.allocate_slots(request, len(tokens) - hits, hits, blocks) is None:
            return False
        request.num_computed_tokens = len(tokens)
        self.running[key] = request
        self.hit_tokens += hits if session else 0
        return True

    def end(self, key: int, *, finished: bool = True, later: bool = False) -> None:
        from vllm.v1.request import RequestStatus

        request = self.running.pop(key)
        request.status = RequestStatus.FINISHED_STOPPED if finished else RequestStatus.PREEMPTED
        keep(self.manager, request)
        if later:
            self.deferred.append(self.manager.pop_blocks_for_free(request))
        else:
            self.manager.free(request)

    def free_deferred(self, left: int) -> None:
        while len(self.deferred) > left:
            self.manager.block_pool.free_blocks(reversed(self.deferred.pop(0)))


class Crowd:
    """Random conversations and one-off requests."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.said: dict[str, list[int]] = {f"s{number}": [number] for number in range(5)}

    def next(self, busy: set[str]) -> tuple[list[int], str | None]:
        """Return a prompt and its session, which is none of the busy ones."""
        draw = self.draw
        names = [name for name in self.said if name not in busy]
        more = [draw.randrange(10_000) for _ in range(draw.randrange(1, 80))]
        if not names or draw.random() < 0.6:
            return more * draw.randrange(1, 6), None
        name = draw.choice(names)
        if len(self.said[name]) > 300:
            self.said[name] = [draw.randrange(10_000)]
        return self.said[name] + more, name


@pytest.fixture(autouse=True)
def settings_of_the_test(monkeypatch: pytest.MonkeyPatch) -> Any:
    active_settings.cache_clear()
    yield
    active_settings.cache_clear()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_stock_grants_is_granted_and_sessions_find_more(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Run(make_manager())
    monkeypatch.setenv("VLINDERS_SESSIONS__ENABLED", "false")
    active_settings.cache_clear()
    stock = Run(make_manager())
    assert isinstance(ours.manager.block_pool.free_block_queue, SessionQueue)
    assert not isinstance(stock.manager.block_pool.free_block_queue, SessionQueue)
    crowd, draw, refused = Crowd(seed), random.Random(seed), 0

    for key in range(1500):
        busy = {r.vlinders_session.name for r in ours.running.values() if hasattr(r, "vlinders_session")}
        tokens, session = crowd.next(busy)
        granted = stock.start(key, tokens, session)
        assert ours.start(key, tokens, session) == granted
        refused += not granted
        if session and granted:
            crowd.said[session] = tokens
        ending = [k for k in ours.running if draw.random() < (0.3 if granted else 0.6)]
        for ended in ending:
            finished, later = draw.random() < 0.9, draw.random() < 0.1
            ours.end(ended, finished=finished, later=later)
            stock.end(ended, finished=finished, later=later)
        for run in (ours, stock):
            run.free_deferred(2)
        assert ours.free == stock.free

    for run in (ours, stock):
        for key in list(run.running):
            run.end(key)
        run.free_deferred(0)
        assert run.free == BLOCKS - 1
    assert refused > 10
    assert ours.hit_tokens > stock.hit_tokens


def test_who_lacks_blocks_is_known_before_vllm_refuses_them() -> None:
    run, crowd, draw, refused = Run(make_manager()), Crowd(0), random.Random(0), 0

    for key in range(600):
        busy = {r.vlinders_session.name for r in run.running.values() if hasattr(r, "vlinders_session")}
        tokens, session = crowd.next(busy)
        short = lacks_blocks(run.manager, make_request(tokens, session), -(-len(tokens) // BLOCK))
        granted = run.start(key, tokens, session)
        assert short == (not granted)
        refused += not granted
        if session and granted:
            crowd.said[session] = tokens
        for ended in [k for k in run.running if draw.random() < (0.3 if granted else 0.6)]:
            run.end(ended)
    assert refused > 10


def test_a_reset_keeps_nothing() -> None:
    run = Run(make_manager())
    run.start(0, list(range(100)), "s")
    run.end(0)
    queue = run.manager.block_pool.free_block_queue
    assert queue.retention.held == 6

    release(run.manager)

    assert run.manager.reset_prefix_cache()
    assert queue.retention.held == 0
    assert run.manager.block_pool.get_num_free_blocks() == BLOCKS - 1
    assert len(queue.get_all_free_blocks()) == BLOCKS - 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"caching": False}, "prefix caching is off"),
        ({"window": 64}, "sliding windows"),
        ({"groups": 2}, "several kinds of KV cache"),
    ],
    ids=["no caching", "sliding window", "hybrid"],
)
def test_where_it_is_not_proven_nothing_is_kept_and_the_log_says_why(
    options: dict[str, Any], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    manager = make_manager(**options)

    assert not isinstance(manager.block_pool.free_block_queue, SessionQueue)
    assert why in capfd.readouterr().err
