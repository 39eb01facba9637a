"""The command `vlinders`. Exit codes: 0 good, 1 a finding, 2 wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vllm_vlinders import __version__
from vllm_vlinders.cli import compat, config, doctor, keys, patches, route, usage, verify
from vllm_vlinders.errors import CompatError, RequestError, StartupError

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except StartupError as error:
        print(f"vlinders: {error}", file=sys.stderr)
        return 1
    except (CompatError, RequestError) as error:
        print(f"vlinders: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlinders", description="Check and operate vLLM with vllm-vlinders."
    )
    parser.add_argument("--version", action="version", version=f"vllm-vlinders {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (doctor, patches, compat, config, keys, route, usage, verify):
        module.add_to(commands)
    return parser
