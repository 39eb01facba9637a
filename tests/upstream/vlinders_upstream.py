"""A pytest plugin: vLLM loads its general plugins before its tests are imported, as in a server."""

from __future__ import annotations


def pytest_configure() -> None:
    """Load the general plugins, and so the patches that VLLM_CUSTOM_PATCHES names."""
    from vllm.plugins import load_general_plugins

    load_general_plugins()
