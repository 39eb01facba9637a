"""vllm-vlinders: plugins and surgical patches for stock vLLM.

Importing this package imports nothing else of it: every vLLM process does so, and most need little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_vlinders._version import __version__

if TYPE_CHECKING:
    from vllm_vlinders.patching.declare import VLLMPatch

__all__ = ["SUPPORTED_VLLM", "__version__", "register_patches"]

SUPPORTED_VLLM = ">=0.28.0,<0.34"
"""The vLLM releases these patches are written for (a PEP 440 specifier)."""


def register_patches() -> list[type[VLLMPatch]]:
    """Return every patch of this package, as ``VLLM_CUSTOM_PATCHES=vllm_vlinders`` selects them."""
    from vllm_vlinders.patches import PATCHES

    return list(PATCHES)
