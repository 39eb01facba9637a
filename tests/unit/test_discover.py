from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vllm_vlinders.errors import DeclarationError, DiscoveryError
from vllm_vlinders.patches import PATCHES
from vllm_vlinders.patching.discover import discover

ACME = """
    from vllm_vlinders.patching import VLLMPatch

    class Base(VLLMPatch):
        feature = "core"
        target = "acme_target:Class"
        versions = ">=0.28"
        why = upstream = remove_when = "said"

    class Core(Base):
        name = "acme_core"
        def one(self): ...

    class Extra(Base):
        name = "acme_extra"
        feature = "extra"
        def two(self): ...

    class Other(Base):
        name = "acme_other"
        feature = "other"
        def three(self): ...

    def register_patches():
        return [Core, Extra, Other]
"""


def names(selection: str) -> list[str]:
    return [patch.name for patch in discover(selection)]


def test_a_module_means_all_its_patches() -> None:
    assert discover("vllm_vlinders") == list(PATCHES)


def test_a_feature_brings_the_core_of_its_module(make_package: Callable[..., Path]) -> None:
    make_package(acme_found=ACME)
    assert names("acme_found:extra") == ["acme_core", "acme_extra"]
    assert names(" acme_found:extra , acme_found:other,") == ["acme_core", "acme_extra", "acme_other"]
    assert names("vllm_vlinders:priority, acme_found")[-3:] == ["acme_core", "acme_extra", "acme_other"]


def test_the_star_means_all_installed_modules() -> None:
    assert "engine_core_scheduler_queue" in names("*")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("vllm_vlindres", r"no module named 'vllm_vlindres'; did you mean 'vllm_vlinders'\?"),
        ("vllm_vlinders.nothing", "no module named 'vllm_vlinders.nothing'"),
        ("vllm_vlinders:speed", "no feature 'speed'; it has: auth, core, priority"),
        ("vllm_vlinders:", "'vllm_vlinders:' is not an item"),
        (":priority", "is not an item"),
        ("acme_silent", "no function register_patches"),
        ("acme_broken", "acme_broken fails with ZeroDivisionError"),
        ("acme_needy", "acme_needy fails with ModuleNotFoundError: No module named 'not_here_at_all'"),
        ("acme_raises", r"register_patches\(\) fails with OSError"),
        ("acme_odd", "returned 5, which is not a subclass of VLLMPatch"),
        ("acme_found,acme_twice", "two patches are named 'acme_core'"),
    ],
)
def test_a_wrong_selection_is_refused_and_the_valid_names_are_told(
    make_package: Callable[..., Path], selection: str, expected: str
) -> None:
    make_package(
        acme_found=ACME,
        acme_twice=ACME,
        acme_silent="",
        acme_broken="1 / 0",
        acme_needy="import not_here_at_all",
        acme_raises="def register_patches(): raise OSError('disk')",
        acme_odd="def register_patches(): return [5]",
    )
    with pytest.raises(DiscoveryError, match=expected):
        discover(selection)


def test_a_declaration_is_checked(make_package: Callable[..., Path]) -> None:
    make_package(acme_hasty=ACME.replace('"said"', '""'))
    with pytest.raises(DeclarationError, match="`why` is required"):
        discover("acme_hasty")


def test_a_selection_of_blanks_selects_nothing() -> None:
    assert discover(" , ") == []


def test_patches_are_returned_once_each() -> None:
    chosen: list[Any] = discover("vllm_vlinders,vllm_vlinders:priority")
    assert chosen == list(PATCHES)
