"""What the offline scripts share: vLLM in this process, its scheduler in reach, the steps observed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = Path(__file__).resolve().parents[3] / ".models"
MODEL = MODELS / "tiny"
LORA = MODELS / "tiny-lora"


def make_llm(**options: Any) -> Any:
    """Return an ``LLM`` of the tiny model whose engine core runs in this process."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM

    defaults: dict[str, Any] = {
        "model": str(MODEL),
        "enforce_eager": True,
        "max_model_len": 512,
        "dtype": "float32",  # no ties at temperature 0
        "disable_log_stats": True,
    }
    return LLM(**defaults | options)


def scheduler_of(llm: Any) -> Any:
    """Return the scheduler of `llm`."""
    return llm.llm_engine.engine_core.engine_core.scheduler


def after_each_step(llm: Any, observe: Callable[[list[Any]], None]) -> None:
    """Call `observe` with the outputs of every engine step."""
    step = llm.llm_engine.step

    def observed() -> list[Any]:
        outputs: list[Any] = step()
        observe(outputs)
        return outputs

    llm.llm_engine.step = observed


def texts(outputs: list[Any]) -> list[list[int]]:
    """Return the token ids of each output."""
    return [list(output.outputs[0].token_ids) for output in outputs]
