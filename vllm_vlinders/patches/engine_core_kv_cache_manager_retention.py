"""Keep the KV blocks of sessions for their next turn."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.session_blocks import install_queue, keep, release
from vllm_vlinders.patching.declare import VLLMPatch

_MANAGER = "vllm.v1.core.kv_cache_manager:KVCacheManager"
_POOL = "vllm.v1.core.block_pool:BlockPool"
_SINGLE = "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager"


class KVCacheManagerRetention(VLLMPatch):
    """Replaces the queue of free blocks, and tells it whose blocks are about to be freed."""

    name = "engine_core_kv_cache_manager_retention"
    target = _MANAGER
    feature = "sessions"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "vLLM evicts the blocks used longest ago, whoever may come back for them: between two turns of a "
        "conversation, one-off requests push its prefix out. No extension point knows which blocks are free."
    )
    upstream = "https://github.com/vllm-project/vllm/issues/52113"
    remove_when = "vLLM's block pool takes an eviction policy from a plugin"
    relies_on = (
        "vllm.v1.core.kv_cache_utils:FreeKVCacheBlockQueue",
        f"{_POOL}.__init__",
        f"{_POOL}.get_new_blocks",
        f"{_POOL}.touch",
        f"{_POOL}.free_blocks",
        f"{_POOL}.evict_blocks",
        f"{_POOL}.reset_prefix_cache",
        f"{_POOL}.get_num_free_blocks",
        f"{_SINGLE}.cache_blocks",
        f"{_SINGLE}.free",
        "vllm.v1.core.single_type_kv_cache_manager:FullAttentionManager",
        "vllm.v1.core.sched.scheduler:Scheduler._free_blocks",
    )
    fingerprints = FINGERPRINTS

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        """Build the manager as vLLM does, then replace its queue of free blocks."""
        KVCacheManagerRetention.original.__init__(self, *args, **options)  # type: ignore[misc]
        install_queue(self)

    def free(self: Any, request: Any) -> None:
        """Keep the blocks of a request that has ended, and free them as vLLM does."""
        keep(self, request)
        KVCacheManagerRetention.original.free(self, request)

    def pop_blocks_for_free(self: Any, request: Any) -> Any:
        """As `free`, for blocks that a step under way still uses."""
        keep(self, request)
        return KVCacheManagerRetention.original.pop_blocks_for_free(self, request)

    def reset_prefix_cache(self: Any) -> bool:
        """Keep nothing any more, and reset as vLLM does."""
        release(self)
        done: bool = KVCacheManagerRetention.original.reset_prefix_cache(self)
        return done
