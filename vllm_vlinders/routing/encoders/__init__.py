"""Text -> vectors: one small interface, several encoders behind it."""

from vllm_vlinders.routing.encoders.base import Encoder
from vllm_vlinders.routing.encoders.create import create_encoder

__all__ = ["Encoder", "create_encoder"]
