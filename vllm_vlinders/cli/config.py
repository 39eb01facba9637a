"""``vlinders config``: check, show, or describe the settings."""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from vllm_vlinders.cli.output import print_json
from vllm_vlinders.settings import Settings, load_settings


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("config", help="check, show or describe the settings")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("check", check, "check the settings of this environment"),
        ("show", show, "print the settings in force, defaults included"),
        ("schema", schema, "print the JSON schema of the settings file"),
    ):
        action = actions.add_parser(name, help=text)
        if name == "show":
            action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(run=run)


def check(_arguments: argparse.Namespace) -> int:
    """Validate; an error is printed by the caller."""
    settings = load_settings()
    if settings.routing is not None and (settings.routing.models or settings.routing.default):
        from vllm_vlinders.routing import SemanticRouter

        SemanticRouter.of_settings(settings.routing)
    print("the settings are valid")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print every setting in force."""
    values = load_settings().model_dump(mode="json")
    if arguments.json:
        print_json(values)
    else:
        print(yaml.safe_dump(values, sort_keys=False), end="")
    return 0


def schema(_arguments: argparse.Namespace) -> int:
    """Print the JSON schema."""
    print_json(Settings.model_json_schema())
    return 0
