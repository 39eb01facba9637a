"""Text -> vectors: one small interface, several encoders behind it."""

from vllm_vlinders.routing.encoders.base import Encoder

__all__ = ["Encoder"]
