"""Any server with OpenAI's /v1/embeddings: another vLLM, a cloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.errors import EncoderError
from vllm_vlinders.routing.encoders.text import ends

_MAX_CHARACTERS = 8_000
_BATCH = 64


class OpenAiEncoder:
    """Asks a server for embeddings, over pooled connections.

    Args:
        url: the server's address, up to and with ``/v1``.
        model: the model to name.
        api_key: sent as a bearer token; None sends none.
        timeout_seconds: how long to wait for an answer.
        transport: in place of the network, for tests.
    """

    name = "openai"

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        timeout_seconds: float = 2.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/embeddings"
        self._model = model
        headers: Mapping[str, str] = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(timeout=timeout_seconds, headers=headers, transport=transport)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of unit length per text; a blank text gives zeros.

        Raises:
            EncoderError: the server cannot be reached, or its answer is not one row of numbers per text.
        """
        given = [number for number, text in enumerate(texts) if text.strip()]
        found = [
            vector
            for first in range(0, len(given), _BATCH)
            for vector in self._ask([ends(texts[n], _MAX_CHARACTERS) for n in given[first : first + _BATCH]])
        ]
        rows = np.zeros((len(texts), len(found[0]) if found else 0), dtype=np.float32)
        for number, vector in zip(given, found, strict=True):
            rows[number] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return rows

    def _ask(self, texts: list[str]) -> list[NDArray[np.float32]]:
        try:
            answer = self._client.post(self._url, json={"model": self._model, "input": texts})
            answer.raise_for_status()
            return _vectors(answer.json(), len(texts))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            message = f"{self._url} gave no embeddings: {type(error).__name__}: {error}"
            raise EncoderError(message) from error


def _vectors(answer: dict[str, Any], count: int) -> list[NDArray[np.float32]]:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    vectors = [np.asarray(row["embedding"], dtype=np.float32) for row in rows]
    if len(vectors) != count or len({vector.shape for vector in vectors}) != 1 or vectors[0].ndim != 1:
        message = f"{len(vectors)} rows for {count} texts, or rows of different length"
        raise ValueError(message)
    return vectors
