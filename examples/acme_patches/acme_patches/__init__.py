"""Acme's patches of vLLM: ``VLLM_CUSTOM_PATCHES=vllm_vlinders,acme_patches`` puts them in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_vlinders.patching import VLLMPatch

SUPPORTED_VLLM = ">=0.28.0,<0.34"


def register_patches() -> list[type[VLLMPatch[Any]]]:
    """Return all patches; vlinders calls this in every process of vLLM."""
    from acme_patches.api_server_sampling_eos import SamplingEos

    return [SamplingEos]
