"""Ways of serving that the patches cannot reach, and how a process ends that must not serve."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from typing import NoReturn

from vllm_vlinders.errors import FrontEndError, StartupError
from vllm_vlinders.patching.apply import when_imported
from vllm_vlinders.patching.discover import PatchClass

_RUST_FRONT_END = "VLLM_USE_RUST_FRONTEND"
_GRPC_SERVERS = ("vllm.entrypoints.grpc_server", "vllm.entrypoints.launchers.grpc_server")
_STDERR = 2


def check_front_end(patches: Iterable[PatchClass]) -> None:
    """Refuse front ends that answer requests outside the Python API server.

    The Rust front end is known from its variable; the gRPC server, which has several ways of being
    asked for, is refused when vLLM imports it.

    Raises:
        FrontEndError: the Rust front end is asked for.
    """
    guarded = [patch.name for patch in patches if patch.required and patch.process == "api_server"]
    if not guarded:
        return
    if os.environ.get(_RUST_FRONT_END, "").strip().lower() not in ("", "0", "false"):
        raise _front_end_error(f"{_RUST_FRONT_END} is set", guarded, f"unset {_RUST_FRONT_END}")
    grpc = _front_end_error("the gRPC server is asked for", guarded, "serve without --grpc")
    for module in _GRPC_SERVERS:
        when_imported(module, lambda: exit_refusing(grpc))


def check_not_main(patch: PatchClass, place: str) -> None:
    """Refuse a target that runs as ``python -m``: its functions are called in ``__main__``, unpatched.

    Raises:
        FrontEndError: that is so, for a required patch.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = place.partition(":")[0]
    if patch.required and spec is not None and spec.name == module:
        raise _front_end_error(f"{module} runs as python -m", [patch.name], "use `vllm serve`")


def _front_end_error(chosen: str, guarded: Iterable[str], remedy: str) -> FrontEndError:
    return FrontEndError(
        f"{chosen}: that way requests are answered without passing {', '.join(guarded)}. "
        f"Allowed: vLLM's Python API server, by `vllm serve`. To start, {remedy}"
    )


def exit_refusing(error: StartupError) -> NoReturn:
    """End the process with one readable message and exit code 1.

    Raises:
        SystemExit: always; outside the main thread the process ends at once.
    """
    lines = str(error).replace("\n", "\n  ")
    message = f"vllm-vlinders: refusing to start: {lines}"
    if threading.current_thread() is not threading.main_thread():
        # SystemExit would end this thread alone, and the server would go on unpatched.
        os.write(_STDERR, f"{message}\n".encode())
        os._exit(1)
    raise SystemExit(message) from None
