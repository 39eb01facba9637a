"""An engine in this process, stepped by the scenario. Time is counted in steps of `STEP_SECONDS`.

Nothing of what is measured in steps depends on the machine: the clock that vLLM and the scheduler
read advances by one step at a time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEP_SECONDS = 0.02
MODELS = Path(__file__).resolve().parents[2] / ".models"


@dataclass
class Measured:
    """What became of a request, in steps since the start; -1: not yet."""

    added: int
    prompt_tokens: int = 0
    first_token: int = -1
    ended: int = -1
    tokens: int = 0

    @property
    def wait(self) -> float:
        """Steps to the first token; infinite if there was none."""
        return self.first_token - self.added if self.first_token >= 0 else float("inf")


@dataclass
class Engine:
    """vLLM's engine with the tiny model.

    Attributes:
        slots: ``max_num_seqs``.
        options: further options of the engine.
        model: name of the folder in ``.models``.
    """

    slots: int
    options: dict[str, Any] = field(default_factory=dict)
    model: str = "tiny"
    steps: int = 0
    requests: dict[str, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the engine, whose clock stands."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        time.monotonic = lambda: 1000 + self.steps * STEP_SECONDS
        from vllm import LLM

        self._llm = LLM(
            model=str(MODELS / self.model),
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=self.slots,
            disable_log_stats=True,
            **self.options,
        )
        self._names: dict[str, str] = {}

    def add(
        self, name: str, tokens: int, *, priority: int = 0, tenant: str | None = None, words: int = 8
    ) -> None:
        """Add a request that generates exactly `tokens`. `priority` is what the engine's scale takes."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        with of_tenant(tenant):
            internal = self._llm.llm_engine.add_request(
                name, f"{name} " + "word " * words, parameters, priority=priority
            )
        self._names[internal] = name
        self.requests[name] = Measured(self.steps)

    def step(self) -> list[str]:
        """Let the engine step; return the names of the requests that ended."""
        outputs = self._llm.llm_engine.step()
        self.steps += 1
        ended = []
        for output in outputs:
            measured = self.requests[output.request_id]
            measured.tokens = len(output.outputs[0].token_ids)
            if measured.tokens and measured.first_token < 0:
                measured.first_token = self.steps
            if output.finished:
                measured.ended = self.steps
                ended.append(output.request_id)
        return ended

    def drain(self) -> None:
        """Step until nothing is left."""
        while self._llm.llm_engine.has_unfinished_requests():
            self.step()

    def chosen(self, prefix: str) -> list[Measured]:
        """Return the requests whose names begin with `prefix`."""
        return [measured for name, measured in self.requests.items() if name.startswith(prefix)]


class of_tenant:  # noqa: N801 - reads as a phrase
    """Add requests as the API server does for a tenant; on stock vLLM it means nothing."""

    def __init__(self, tenant: str | None) -> None:
        self._tenant = tenant if os.environ.get("VLLM_CUSTOM_PATCHES") else None
        self._token: Any = None

    def __enter__(self) -> None:
        if self._tenant:
            from vllm_vlinders.request_context import RequestContext, current_request

            self._token = current_request.set(RequestContext("scenario", tenant=self._tenant))

    def __exit__(self, *_: object) -> None:
        if self._tenant:
            from vllm_vlinders.request_context import current_request

            current_request.reset(self._token)
