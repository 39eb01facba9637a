"""How errors are answered: in OpenAI's shape."""

from __future__ import annotations

import json

from vllm_vlinders.errors import RequestError


def error_body(error: RequestError) -> bytes:
    """Return the JSON body of OpenAI's error shape."""
    fields = {
        "message": str(error),
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return json.dumps({"error": fields}).encode()
