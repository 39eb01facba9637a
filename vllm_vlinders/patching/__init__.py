"""The life of a patch. For authors of patches: declare with `VLLMPatch`, gate with the decorators.

The steps, in order: `declare`, `discover`, `gate`, `fingerprint`, `apply`, `report`; `lifecycle` runs them.
"""

from vllm_vlinders.patching.declare import VLLMPatch, min_vllm_version, vllm_versions
from vllm_vlinders.patching.gate import running_vllm_version
from vllm_vlinders.patching.table import load_fingerprints

__all__ = [
    "VLLMPatch",
    "load_fingerprints",
    "min_vllm_version",
    "running_vllm_version",
    "vllm_versions",
]
