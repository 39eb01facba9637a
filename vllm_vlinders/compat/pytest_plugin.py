"""A pytest plugin for vLLM's own tests: patched before anything is imported, and the same in every run."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest


def pytest_configure() -> None:
    """Do what vLLM does with its general plugins: apply what VLLM_CUSTOM_PATCHES names."""
    from vllm_vlinders.plugin import register

    register()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let each test draw the same random numbers, or the stock and the patched run cannot be compared."""
    random.seed(0)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
