"""A pytest plugin: the patches are put in place before vLLM's own tests import anything, as in a server."""

from __future__ import annotations


def pytest_configure() -> None:
    """Do what vLLM does with its general plugins: apply what VLLM_CUSTOM_PATCHES names."""
    from vllm_vlinders.plugin import register

    register()
