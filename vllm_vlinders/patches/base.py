"""What all patches of this package share."""

from __future__ import annotations

from vllm_vlinders import SUPPORTED_VLLM
from vllm_vlinders.patching.table import load_fingerprints

VERSIONS = SUPPORTED_VLLM
FINGERPRINTS = load_fingerprints(__file__)
