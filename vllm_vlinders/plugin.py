"""The entry point that vLLM calls in each of its processes (group ``vllm.general_plugins``).

vLLM swallows an exception raised while *importing* a plugin and lets one raised by *calling* it
escape. So this module imports nothing that can fail, and refuses inside the call.
"""

from __future__ import annotations

import os


def register() -> None:
    """Put the patches chosen by ``VLLM_CUSTOM_PATCHES`` in place; without it, do nothing.

    Idempotent: vLLM may call it several times in one process.

    Raises:
        SystemExit: the server must not start; the reason is the exit message.
    """
    selection = os.environ.get("VLLM_CUSTOM_PATCHES", "")
    if not selection.strip():
        return
    from vllm_vlinders.patching.lifecycle import start_or_exit

    start_or_exit(selection)
