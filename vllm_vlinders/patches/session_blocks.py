"""What is read of vLLM's KV cache manager for sessions: which blocks to keep, and whether it makes sense."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.logs import make_logger
from vllm_vlinders.sessions.queue import SessionQueue
from vllm_vlinders.sessions.retention import Retention
from vllm_vlinders.settings import active_settings


def install_queue(manager: Any) -> None:
    """Put our queue of free blocks in the place of that of a ``KVCacheManager``, if its model allows it."""
    settings = active_settings()
    if not settings.sessions.enabled:
        return
    reason = _unfit(manager)
    if reason is not None:
        make_logger(settings.logging).warning(f"sessions keep no KV blocks here: {reason}")
        return
    pool = manager.block_pool
    most = int(settings.sessions.max_fraction * pool.num_gpu_blocks)
    tenant_most = int(settings.sessions.tenant_fraction * most)
    spec = manager.kv_cache_config.kv_cache_groups[0].kv_cache_spec
    retention = Retention(most, tenant_most, settings.sessions.ttl_seconds, spec.block_size)
    pool.free_block_queue = SessionQueue(pool.free_block_queue, retention)


def keep(manager: Any, request: Any) -> None:
    """Keep the blocks of `request`, which has ended and whose blocks are about to be freed."""
    queue, session = manager.block_pool.free_block_queue, getattr(request, "vlinders_session", None)
    if session is None or not isinstance(queue, SessionQueue) or not request.is_finished():
        return
    (group,) = manager.coordinator.single_type_managers
    cached = group.num_cached_block.get(request.request_id, 0)
    blocks = group.req_to_blocks.get(request.request_id, [])[:cached]
    if blocks:
        queue.keep(session.name, session.tenant, blocks)


def release(manager: Any) -> None:
    """Keep nothing any more."""
    queue = manager.block_pool.free_block_queue
    if isinstance(queue, SessionQueue):
        queue.clear()


def _unfit(manager: Any) -> str | None:
    """Return why nothing can be kept for sessions; None if it can."""
    from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

    managers = manager.coordinator.single_type_managers
    if not manager.enable_caching:
        return "prefix caching is off"
    if len(managers) != 1:
        return "the model has several kinds of KV cache (a hybrid model)"
    spec = manager.kv_cache_config.kv_cache_groups[0].kv_cache_spec
    window = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None)
    if type(managers[0]) is not FullAttentionManager or window:
        return "the model does not attend to the whole prefix (sliding windows, chunks, state space)"
    return None
