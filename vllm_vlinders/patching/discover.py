"""Step 2: patches are discovered from ``VLLM_CUSTOM_PATCHES``.

Grammar: items separated by commas; an item is ``module`` (all its patches), ``module:feature``
(that feature and the module's ``core``), or ``*`` (every module installed under the entry point
group ``vllm_vlinders.patches``).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType

from vllm_vlinders.errors import DiscoveryError, StartupError
from vllm_vlinders.patching.declare import VLLMPatch, check_declaration

ENTRY_POINT_GROUP = "vllm_vlinders.patches"
CORE = "core"
PatchClass = type[VLLMPatch]


def discover(selection: str) -> list[PatchClass]:
    """Return the selected patches, each once, in the order of the selection.

    Raises:
        DiscoveryError: a module or feature is unknown (the valid names are listed), a module offers
            no ``register_patches``, or two patches share a name.
        DeclarationError: a patch is declared wrongly.
    """
    chosen: dict[str, PatchClass] = {}
    for module_name, feature in _items(selection):
        for patch in _select(module_name, _patches_of(module_name), feature):
            check_declaration(patch)
            if chosen.setdefault(patch.name, patch) is not patch:
                message = (
                    f"VLLM_CUSTOM_PATCHES: two patches are named {patch.name!r}: "
                    f"{chosen[patch.name].__module__} and {patch.__module__}; rename one"
                )
                raise DiscoveryError(message)
    return list(chosen.values())


def selected_modules(selection: str) -> list[ModuleType]:
    """Return the patch modules that `selection` names, each once.

    Raises:
        DiscoveryError: one does not exist.
    """
    return [load_module(name) for name in dict.fromkeys(module for module, _ in _items(selection))]


def load_module(name: str) -> ModuleType:
    """Import a patch module.

    Raises:
        DiscoveryError: it does not exist or fails to import; installed ones are listed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise DiscoveryError(_broken(name, error)) from error
        installed = installed_modules()
        near = difflib.get_close_matches(name, installed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = (
            f"VLLM_CUSTOM_PATCHES: no module named {name!r}{hint} "
            f"(installed patch modules: {', '.join(installed) or 'none'})"
        )
        raise DiscoveryError(message) from None
    except StartupError:
        raise
    except Exception as error:
        raise DiscoveryError(_broken(name, error)) from error


def installed_modules() -> list[str]:
    """Return the patch modules that installed distributions announce, sorted."""
    return sorted({point.value for point in entry_points(group=ENTRY_POINT_GROUP)})


def _items(selection: str) -> Iterable[tuple[str, str | None]]:
    for item in (part.strip() for part in selection.split(",")):
        if not item:
            continue
        if item == "*":
            yield from ((module, None) for module in installed_modules())
            continue
        module, colon, feature = item.partition(":")
        if not module or (colon and not feature):
            message = (
                f"VLLM_CUSTOM_PATCHES: {item!r} is not an item; write 'module', 'module:feature' or '*', "
                "separated by commas"
            )
            raise DiscoveryError(message)
        yield module, feature or None


def _patches_of(module_name: str) -> list[PatchClass]:
    module = load_module(module_name)
    register = getattr(module, "register_patches", None)
    if not callable(register):
        message = (
            f"VLLM_CUSTOM_PATCHES: module {module_name!r} has no function register_patches() "
            "that returns its patch classes"
        )
        raise DiscoveryError(message)
    try:
        patches = list(register())
    except StartupError:
        raise
    except Exception as error:
        raise DiscoveryError(_broken(f"{module_name}.register_patches()", error)) from error
    for patch in patches:
        if not (isinstance(patch, type) and issubclass(patch, VLLMPatch)):
            message = (
                f"VLLM_CUSTOM_PATCHES: {module_name}.register_patches() returned {patch!r}, "
                "which is not a subclass of VLLMPatch"
            )
            raise DiscoveryError(message)
    return patches


def _select(module: str, patches: list[PatchClass], feature: str | None) -> list[PatchClass]:
    if feature is None:
        return patches
    if feature not in {patch.feature for patch in patches}:
        valid = sorted({patch.feature for patch in patches})
        message = (
            f"VLLM_CUSTOM_PATCHES: module {module!r} has no feature {feature!r}; "
            f"it has: {', '.join(valid) or 'none'}"
        )
        raise DiscoveryError(message)
    return [patch for patch in patches if patch.feature in (feature, CORE)]


def _broken(name: str, error: Exception) -> str:
    return f"VLLM_CUSTOM_PATCHES: {name} fails with {type(error).__name__}: {error}"
