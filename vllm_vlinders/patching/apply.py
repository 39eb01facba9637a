"""Step 5: a patch is applied when its target's module has been imported, and can be undone.

Each replaced function becomes a small dispatcher whose code is named ``vlinders_<name>``, so that a
traceback says who stands there. Switching the dispatcher off calls the original again: undo works
even beneath a wrapper that another plugin has put on top.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import WRAPPER_ASSIGNMENTS, update_wrapper
from types import FunctionType, ModuleType
from typing import Any

import wrapt

from vllm_vlinders.errors import ApplyError
from vllm_vlinders.patching.declare import VLLMPatch

Function = Callable[..., Any]
_MISSING = object()


@dataclass(slots=True)
class Replacement:
    """One function put in the place of another."""

    owner: Any
    name: str
    found: Any
    """The raw attribute that stood in the owner's namespace (a descriptor, perhaps)."""
    placed: Any
    switch: list[bool] = field(default_factory=lambda: [True])

    def undo(self) -> bool:
        """Call the original again; return whether the owner looks as before (False: wrapped by others)."""
        self.switch[0] = False
        if vars(self.owner).get(self.name) is not self.placed:
            return False
        setattr(self.owner, self.name, self.found)
        return True


@dataclass(slots=True)
class Application:
    """A patch that has been applied, and what was found in doing so."""

    patch: type[VLLMPatch]
    place: str
    replacements: list[Replacement]
    late: bool = False
    repaired: list[str] = field(default_factory=list)
    held_elsewhere: list[str] = field(default_factory=list)

    def undo(self) -> bool:
        """Undo the patch; return whether every owner was as it had been left. May be repeated."""
        clean = True
        for replacement in reversed(self.replacements):
            clean = replacement.undo() and clean
            original = _plain(replacement.found)
            for module in self.repaired:
                _rebind(sys.modules.get(module), _plain(replacement.placed), original)
        return clean


def when_imported(place: str, action: Callable[[], None]) -> bool:
    """Run `action` once the module of `place` is imported; return whether it was already."""
    module = place.partition(":")[0]
    late = module in sys.modules
    wrapt.register_post_import_hook(lambda _module: action(), module)
    return late


def apply(patch: type[VLLMPatch], place: str, *, late: bool = False) -> Application:
    """Put the overrides of `patch` in place; the module of `place` is imported already.

    Args:
        patch: the patch.
        place: ``module`` or ``module:Class``, as ``patch.target_for`` returned it.
        late: the module was imported before: look for copies of its names in other modules.

    Raises:
        ApplyError: the target or one of its functions is missing or of another kind; nothing is changed.
    """
    owner = _resolve(patch, place)
    replacements = [_prepare(patch, owner, name, override) for name, override in patch.overrides().items()]
    application = Application(patch, place, replacements, late=late)
    for replacement in replacements:
        setattr(owner, replacement.name, replacement.placed)
        if late and isinstance(owner, ModuleType):
            _repair_copies(application, replacement)
    return application


def _resolve(patch: type[VLLMPatch], place: str) -> Any:
    module_name, _, qualname = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    for name in qualname.split(".") if qualname else ():
        owner = getattr(owner, name, _MISSING)
        if owner is _MISSING:
            message = f"patch {patch.name}: {place} does not exist (no {name!r})"
            raise ApplyError(message)
    return owner


def _prepare(patch: type[VLLMPatch], owner: Any, name: str, override: Any) -> Replacement:
    found = vars(owner).get(name, _MISSING)
    where = f"patch {patch.name} replaces {name!r}"
    if found is _MISSING:
        message = f"{where}, which {owner!r} does not define itself"
        raise ApplyError(message)
    in_module = isinstance(owner, ModuleType)
    if not in_module and _kind(found) is not _kind(override):
        message = f"{where} as a {_kind(override).__name__}, but there it is a {_kind(found).__name__}"
        raise ApplyError(message)
    original: Any = _plain(found)
    if not callable(original):
        message = f"{where}, which is not a function there"
        raise ApplyError(message)
    switch = [True]
    dispatcher = _dispatcher(name, _plain(override), original, switch)
    vars(patch.original)[name] = original
    placed = dispatcher if in_module or _kind(found) is FunctionType else _kind(found)(dispatcher)
    return Replacement(owner, name, found, placed, switch)


def _kind(attribute: Any) -> type:
    for kind in (staticmethod, classmethod):
        if isinstance(attribute, kind):
            return kind
    return FunctionType


def _plain(attribute: Any) -> Any:
    return attribute.__func__ if isinstance(attribute, staticmethod | classmethod) else attribute


def _dispatcher(name: str, override: Function, original: Function, switch: list[bool]) -> Function:
    """Return a function that calls `override` while the switch is on, and looks like `original`."""
    dispatch: Any
    if inspect.isasyncgenfunction(original):

        async def dispatch_items(*args: Any, **kwargs: Any) -> Any:
            chosen = override if switch[0] else original
            async with aclosing(chosen(*args, **kwargs)) as items:
                async for item in items:
                    yield item

        dispatch = dispatch_items
    elif inspect.iscoroutinefunction(original):

        async def dispatch_awaited(*args: Any, **kwargs: Any) -> Any:
            return await (override if switch[0] else original)(*args, **kwargs)

        dispatch = dispatch_awaited
    else:

        def dispatch_call(*args: Any, **kwargs: Any) -> Any:
            return (override if switch[0] else original)(*args, **kwargs)

        dispatch = dispatch_call
    present = [a for a in WRAPPER_ASSIGNMENTS if hasattr(original, a)]
    update_wrapper(dispatch, original, assigned=present)
    visible = f"vlinders_{name}"
    dispatch.__code__ = dispatch.__code__.replace(co_name=visible, co_qualname=visible)
    replacement: Function = dispatch
    return replacement


def _repair_copies(application: Application, replacement: Replacement) -> None:
    """Rebind the module-level copies made by ``from module import name``; note holders beyond repair."""
    original, placed = _plain(replacement.found), _plain(replacement.placed)
    package = application.place.partition(".")[0]
    for name, module in list(sys.modules.items()):
        inside = name.partition(".")[0] == package and module is not replacement.owner
        if inside and _rebind(module, original, placed):
            application.repaired.append(name)
    ours = {id(vars(placed)), id(vars(application.patch.original))}
    for holder in gc.get_referrers(original):
        if isinstance(holder, list | tuple | set | dict) and id(holder) not in ours:
            application.held_elsewhere.append(type(holder).__name__)


def _rebind(module: ModuleType | None, old: Function, new: Function) -> bool:
    names = [] if module is None else [n for n, v in list(vars(module).items()) if v is old]
    for name in names:
        setattr(module, name, new)
    return bool(names)
