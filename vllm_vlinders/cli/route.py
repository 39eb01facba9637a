"""``vlinders route``: which model would answer a prompt, by the settings of this environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from vllm_vlinders.auth.roles import models_of
from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings import AuthSettings, load_settings

_COLUMNS = ("prompt", "model", "route", "reason", "category", "complexity")
_PARTS = ("model", "quality", "fit", "cost", "speed", "load", "session", "total")
_SHOWN = 60


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("route", help="say which model would answer a prompt, and why")
    parser.add_argument(
        "prompts", nargs="+", metavar="PROMPT", help="a prompt; - reads one from standard input"
    )
    parser.add_argument(
        "--requirements", default="", metavar="WORDS", help="as quality=high,cost=low,model=NAME"
    )
    parser.add_argument("--tenant", help="who pays")
    parser.add_argument("--role", help="the role of the caller")
    parser.add_argument("--explain", action="store_true", help="show every signal and score")
    parser.add_argument("--json", action="store_true", help="print JSON, with every signal and score")
    parser.set_defaults(run=route)


def route(arguments: argparse.Namespace) -> int:
    """Print the decision for each prompt."""
    from vllm_vlinders.routing import SemanticRouter
    from vllm_vlinders.routing.requirements import parse_header

    settings = load_settings()
    section = settings.routing
    if section is None:
        raise SettingsError(
            "routing: this section is not set; name models in VLINDERS_CONFIG, see docs/routing.md"
        )
    router = SemanticRouter.of_settings(section)
    given = parse_header(arguments.requirements)
    words = {name: word for name, word in given.levels.model_dump().items() if word is not None}
    may_use = _models_of(settings.auth, arguments.role, router.models)
    found = []
    for argument in arguments.prompts:
        prompt = sys.stdin.read() if argument == "-" else argument
        try:
            decision = router.explain(
                prompt,
                words,
                preference=given.model,
                tenant=arguments.tenant,
                role=arguments.role,
                may_use=may_use,
            )
        except LookupError as error:
            raise SettingsError(str(error.args[0])) from None
        found.append({"prompt": prompt, **decision})
    if arguments.json:
        print_json(found)
        return 0
    print_table([_row(decision) for decision in found], _COLUMNS)
    if arguments.explain:
        for decision in found:
            _explain(decision)
    return 0


def _models_of(auth: AuthSettings | None, name: str | None, models: Iterable[str]) -> list[str]:
    """Return which of `models` a role may use: without authentication or a role, all.

    Raises:
        SettingsError: there is no such role.
    """
    if auth is None or name is None:
        return list(models)
    try:
        may_use = models_of(auth, name)
    except LookupError as error:
        raise SettingsError(f"--role: {error.args[0]}") from None
    return [model for model in models if may_use(model)]


def _row(decision: Mapping[str, Any]) -> dict[str, str]:
    prompt = " ".join(decision["prompt"].split())
    shown = prompt if len(prompt) <= _SHOWN else f"{prompt[:_SHOWN]}…"
    values = {**decision, "prompt": shown, "complexity": f"{decision['complexity']:.2f}"}
    return {name: str(values[name] or "-") for name in _COLUMNS}


def _explain(decision: Mapping[str, Any]) -> None:
    print()
    signals = {**decision["signals"], **{f"score of {name}": n for name, n in decision["categories"].items()}}
    print_table(
        [{"signal": name, "value": str(value)} for name, value in signals.items()], ("signal", "value")
    )
    if decision["scores"]:
        print()
        scores = [{"model": model, **parts} for model, parts in decision["scores"].items()]
        print_table([{name: str(row[name]) for name in _PARTS} for row in scores], _PARTS)
