"""Where settings come from: defaults, then the YAML file, then the environment; the later wins."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings.secret import HIDDEN
from vllm_vlinders.settings.tree import Settings

PREFIX = "VLINDERS_"
SHORT_NAMES = {"VLINDERS_ON_DRIFT": ("patches", "on_drift")}
NOT_SETTINGS = {"VLINDERS_CONFIG", "VLINDERS_RUN_DIR"}
_NEARLY = 0.8
_MERGE = "tag:yaml.org,2002:merge"


@cache
def active_settings() -> Settings:
    """Return the settings of this process, read once.

    Raises:
        SettingsError: see `load_settings`.
    """
    return load_settings()


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the file named by ``VLINDERS_CONFIG``, then the environment, and validate the whole.

    Args:
        environ: the environment to read; ``os.environ`` when None.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, or a value is not allowed; the
            message lists every problem with the path of its key and where it was set.
    """
    environ = os.environ if environ is None else environ
    tree = _read_file(environ.get("VLINDERS_CONFIG"))
    origins = _overlay_environment(tree, environ)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        source = environ.get("VLINDERS_CONFIG") or "the environment"
        problems = [_explain(detail, origins, source) for detail in error.errors()]
        raise SettingsError("\n".join(problems)) from None


def _read_file(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), path)
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"VLINDERS_CONFIG={path}: cannot be read as YAML: {error}"
        raise SettingsError(message) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        message = f"VLINDERS_CONFIG={path}: expected a mapping of sections, got {type(tree).__name__}"
        raise SettingsError(message)
    return {key: {} if value is None else value for key, value in tree.items()}


def _check_keys(node: yaml.Node | None, file: str, path: str = "", seen: set[int] | None = None) -> None:
    """Check that no mapping has a key twice, of which YAML would take the last.

    Args:
        node: what to look through.
        file: where it stands, for the message.
        path: the dotted keys that lead to it.
        seen: what has been looked through: with aliases, YAML names one thing in several places.

    Raises:
        SettingsError: one has; the message says which.
    """
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _check_keys(item, file, f"{path}{place}.", seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = f"{path}{key.value}", key.start_mark.line + 1
            if (key.tag, name) in lines and key.tag != _MERGE:
                first = lines[key.tag, name]
                raise SettingsError(f"{name}: given twice in {file}, in the lines {first} and {line}")
            lines[key.tag, name] = line
            _check_keys(value, file, f"{name}.", seen)


def _overlay_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Write the environment's settings into `tree`; return which variable set which dotted key."""
    origins: dict[str, str] = {}
    for name in sorted(environ):
        keys = _keys_of(name)
        if keys is None:
            continue
        _put(tree, keys, _parse(name, environ[name]), name)
        origins[".".join(keys)] = name
    return origins


def _keys_of(name: str) -> tuple[str, ...] | None:
    """Return the keys that a variable sets; None if it is no setting.

    ``VLINDERS_PEPPER`` may hold a secret that a setting refers to, and Kubernetes makes up names such
    as ``VLINDERS_PORT``: without a ``__``, only what is a section's name or nearly so is taken as one.
    """
    if not name.startswith(PREFIX) or name in NOT_SETTINGS:
        return None
    keys = tuple(name[len(PREFIX) :].lower().split("__"))
    near = difflib.get_close_matches(keys[0], Settings.model_fields, n=1, cutoff=_NEARLY)
    return SHORT_NAMES.get(name) or (keys if len(keys) > 1 or near else None)


def _parse(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        message = f"{name}: cannot be read as a YAML value; quote it"
        raise SettingsError(message) from None


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: Any, name: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        if tree.get(key) is None:
            tree[key] = {}
        section = tree[key]
        if not isinstance(section, dict):
            message = f"{name}: {'.'.join(keys[: depth + 1])} is not a section"
            raise SettingsError(message)
        tree = section
    tree[keys[-1]] = value


def _explain(detail: Any, origins: Mapping[str, str], source: str) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path) or "quotas"
    where = origins.get(key, source)
    if detail["type"] in (HIDDEN, "missing") or not path:
        return f"{key} (from {where}): {detail['msg']}"
    if detail["type"] != "extra_forbidden":
        return f"{key} (from {where}): {detail['msg']}, got {detail['input']!r}"
    known = _names_at(path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{key} (from {where}): unknown setting; {hint}known here: {', '.join(known)}"


def _names_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    names = iter(path)
    for name in names:
        annotation: Any = model.model_fields[name].annotation
        if get_origin(annotation) in (dict, tuple):
            annotation = get_args(annotation)[get_origin(annotation) is dict]
            next(names, None)
        if isinstance(annotation, UnionType):
            annotation = get_args(annotation)[0]
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)
