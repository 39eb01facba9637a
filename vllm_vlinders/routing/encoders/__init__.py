"""Text -> vectors: one small interface, several encoders behind it."""

from vllm_vlinders.routing.encoders.base import Encoder
from vllm_vlinders.routing.encoders.cached import CachedEncoder
from vllm_vlinders.routing.encoders.create import create_encoder

__all__ = ["CachedEncoder", "Encoder", "create_encoder"]
