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
    """What became of a request, in steps since the start; -1: not yet.

    `seconds` is the time of the machine until its first token.
    """

    added: int
    prompt_tokens: int = 0
    first_token: int = -1
    ended: int = -1
    tokens: int = 0
    cached_tokens: int = 0
    text: list[int] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)
    seconds: float = float("inf")

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

    def add(
        self, name: str, tokens: int, *, priority: int = 0, tenant: str | None = None, words: int = 8
    ) -> None:
        """Add a request that generates exactly `tokens`. `priority` is what the engine's scale takes."""
        self._add(name, f"{name} " + "word " * words, tokens, priority, known(tenant=tenant))

    def add_tokens(self, name: str, prompt: list[int], tokens: int, session: str | None = None) -> None:
        """Add a request with the tokens of its prompt, of a session."""
        self._add(name, {"prompt_token_ids": prompt}, tokens, 0, known(session=session))
        self.requests[name].prompt_tokens = len(prompt)

    def _add(self, name: str, prompt: Any, tokens: int, priority: int, context: known) -> None:
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        with context:
            self._llm.llm_engine.add_request(name, prompt, parameters, priority=priority)
        self.requests[name] = Measured(self.steps)

    def step(self) -> list[str]:
        """Let the engine step; return the names of the requests that ended."""
        outputs = self._llm.llm_engine.step()
        self.steps += 1
        ended = []
        for output in outputs:
            measured = self.requests[output.request_id]
            measured.text = list(output.outputs[0].token_ids)
            measured.tokens = len(measured.text)
            measured.cached_tokens = output.num_cached_tokens or 0
            if measured.tokens and measured.first_token < 0:
                measured.first_token = self.steps
                measured.seconds = time.perf_counter() - measured.begun
            if output.finished:
                measured.ended = self.steps
                ended.append(output.request_id)
        return ended

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._llm.llm_engine.has_unfinished_requests())

    def idle(self) -> list[str]:
        """Let the time of a step pass."""
        self.steps += 1
        return []

    def time_model(self) -> list[float]:
        """Return the list into which the seconds of each run of the model go from now on."""
        executor = self._llm.llm_engine.engine_core.engine_core.model_executor
        execute, seconds = executor.execute_model, []

        def timed(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return execute(*arguments, **options)
            finally:
                seconds.append(time.perf_counter() - begin)

        executor.execute_model = timed
        return seconds

    def drain(self) -> None:
        """Step until nothing is left."""
        while self.busy:
            self.step()

    def chosen(self, prefix: str) -> list[Measured]:
        """Return the requests whose names begin with `prefix`."""
        return [measured for name, measured in self.requests.items() if name.startswith(prefix)]


class known:  # noqa: N801 - reads as a phrase
    """Add requests as the API server does where tenant or session are known; on stock vLLM it means nothing."""

    def __init__(self, **what: str | None) -> None:
        self._what = {name: value for name, value in what.items() if value}
        if not os.environ.get("VLLM_CUSTOM_PATCHES"):
            self._what = {}
        self._token: Any = None

    def __enter__(self) -> None:
        if self._what:
            from vllm_vlinders.request_context import RequestContext, current_request

            self._token = current_request.set(RequestContext("scenario", **self._what))

    def __exit__(self, *_: object) -> None:
        if self._what:
            from vllm_vlinders.request_context import current_request

            current_request.reset(self._token)
