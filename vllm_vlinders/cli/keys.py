"""``vlinders keys``: make, list and revoke API keys, in the store that the settings name.

It works on the store itself, before a server runs as well as beside one.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import yaml

from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.errors import KeyRequestError, SettingsError
from vllm_vlinders.settings import AuthSettings, KeySettings, load_settings, reveal

_COLUMNS = ("id", "tenant", "role", "state", "principal", "label", "created", "expires", "last_used")


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("keys", help="make, list, rotate and revoke API keys")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create_ = _action(actions, "create", create, "make a key; it is shown once")
    entry_ = _action(actions, "entry", entry, "make a key and its entry for a YAML store")
    for action in (create_, entry_):
        action.add_argument("--tenant", required=True, help="who pays")
        action.add_argument("--role", default="user", help="admin, user, readonly, metrics, or your own")
        action.add_argument("--principal", help="whose key it is (default: the key's own id)")
        action.add_argument("--label", default="", help="a note for people")
        action.add_argument("--expires", metavar="WHEN", help="30d, 12h, or 2027-01-31T00:00:00Z")
        action.add_argument("--not-before", metavar="WHEN", help="the same")
    list_ = _action(actions, "list", list_keys, "list the keys")
    list_.add_argument("--tenant", help="of this tenant alone")
    for name, run, text in (
        ("show", show, "show one key"),
        ("revoke", revoke, "revoke a key, within 2 seconds on every server"),
        ("rotate", rotate, "make a key that replaces another one"),
    ):
        action = _action(actions, name, run, text)
        action.add_argument("key", metavar="ID", help="the id: the part between vk_ and the second _")
        if name == "rotate":
            action.add_argument("--overlap", default="24h", help="how long the old key counts (default: 24h)")


def _action(actions: Any, name: str, run: Callable[..., int], text: str) -> Any:
    action = actions.add_parser(name, help=text)
    action.add_argument("--json", action="store_true", help="print JSON")
    action.set_defaults(run=lambda arguments: _reported(run, arguments))
    return action


def _reported(run: Callable[..., int], arguments: argparse.Namespace) -> int:
    try:
        return run(arguments)
    except KeyRequestError as error:
        print(f"vlinders: {error}", file=sys.stderr)
        return 1


def create(arguments: argparse.Namespace) -> int:
    """Make a key."""
    with _office() as office:
        return _show_once(office.create(**_wishes(arguments)), arguments)


def entry(arguments: argparse.Namespace) -> int:
    """Make a key for a YAML store: print it, and the entry that is to go into the file."""
    from vllm_vlinders.auth.audit import Audit
    from vllm_vlinders.auth.key_office import KeyOffice

    auth, keys = _auth_settings()
    office = KeyOffice(None, _pepper(keys), auth, Audit(auth.audit), actor=_actor())
    new = office.make(**_wishes(arguments))
    fields = {name: value for name, value in asdict(new.record).items() if value not in (None, "")}
    if arguments.json:
        print_json({"key": new.key, "entry": fields})
    else:
        print(f"# the key, shown once: {new.key}")
        print(yaml.safe_dump([fields], sort_keys=False), end="")
    return 0


def list_keys(arguments: argparse.Namespace) -> int:
    """List the keys."""
    with _office() as office:
        _print_records(office.list(arguments.tenant), arguments)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Show one key."""
    with _office() as office:
        _print_records([office.get(arguments.key)], arguments)
    return 0


def revoke(arguments: argparse.Namespace) -> int:
    """Revoke a key."""
    with _office() as office:
        _print_records([office.revoke(arguments.key)], arguments)
    return 0


def rotate(arguments: argparse.Namespace) -> int:
    """Make a key that replaces another one."""
    from vllm_vlinders.auth.moments import parse_duration

    with _office() as office:
        overlap = parse_duration(arguments.overlap, "--overlap")
        return _show_once(office.rotate(arguments.key, overlap), arguments)


@contextmanager
def _office() -> Iterator[Any]:
    from vllm_vlinders.auth.audit import Audit
    from vllm_vlinders.auth.key_office import KeyOffice
    from vllm_vlinders.auth.store import open_store

    auth, keys = _auth_settings()
    pepper, store = _pepper(keys), open_store(keys)
    try:
        yield KeyOffice(store, pepper, auth, Audit(auth.audit), actor=_actor())
    finally:
        store.close()


def _auth_settings() -> tuple[AuthSettings, KeySettings]:
    auth = load_settings().auth
    if auth is None or auth.keys is None:
        raise SettingsError(
            "there is no store of keys: set auth.keys.store and auth.keys.pepper in the file that "
            "VLINDERS_CONFIG names, or VLINDERS_AUTH__KEYS__STORE and VLINDERS_AUTH__KEYS__PEPPER"
        )
    return auth, auth.keys


def _pepper(keys: KeySettings) -> Any:
    from vllm_vlinders.auth.keys import Pepper

    return Pepper(reveal(keys.pepper, "auth.keys.pepper"))


def _actor() -> str:
    """Return who runs the command, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "cli"


def _wishes(arguments: argparse.Namespace) -> dict[str, Any]:
    from vllm_vlinders.auth.moments import parse_moment

    now = time.time()
    return {
        "tenant": arguments.tenant,
        "role": arguments.role,
        "principal": arguments.principal,
        "label": arguments.label,
        "not_before": parse_moment(arguments.not_before, "--not-before", now),
        "expires": parse_moment(arguments.expires, "--expires", now),
    }


def _show_once(new: Any, arguments: argparse.Namespace) -> int:
    from vllm_vlinders.auth.moments import describe

    if arguments.json:
        print_json({"key": new.key, **describe(new.record, time.time())})
    else:
        print(new.key)
        print("This is the key. It is not stored and not shown again.", file=sys.stderr)
    return 0


def _print_records(records: list[Any], arguments: argparse.Namespace) -> None:
    from vllm_vlinders.auth.moments import describe

    rows = [describe(record, time.time()) for record in records]
    if arguments.json:
        print_json(rows[0] if hasattr(arguments, "key") else {"keys": rows})
    else:
        print_table([{name: str(row[name] or "") for name in _COLUMNS} for row in rows], _COLUMNS)
