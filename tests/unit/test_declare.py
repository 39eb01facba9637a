from __future__ import annotations

import functools
from typing import Any

import pytest
from packaging.version import Version

from vllm_vlinders.errors import DeclarationError
from vllm_vlinders.patching import VLLMPatch, min_vllm_version, vllm_versions
from vllm_vlinders.patching.declare import check_declaration

FIELDS = {
    "name": "p",
    "feature": "f",
    "target": "pack.module:Class",
    "versions": ">=0.28",
    "why": "because",
    "upstream": "none: ours",
    "remove_when": "never",
}


def declare(base: Any = VLLMPatch, **changes: Any) -> type[VLLMPatch]:
    def method(self: Any) -> None: ...

    fields = {key: value for key, value in {**FIELDS, **changes}.items() if value is not None}
    return type("Declared", (base,), {"method": method, **fields})


def test_a_complete_declaration_is_accepted() -> None:
    check_declaration(declare())


@pytest.mark.parametrize("field", ["name", "feature", "why", "upstream", "remove_when", "versions", "target"])
def test_every_field_is_required_and_named_when_missing(field: str) -> None:
    with pytest.raises(DeclarationError, match=f"Declared.*{field}"):
        check_declaration(declare(**{field: None}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"process": "kernel"}, "process 'kernel' is not one of api_server, engine_core, worker, any"),
        ({"versions": "0.28"}, "PEP 440"),
        ({"target": "not a target"}, "of the form 'module' or 'module:Class'"),
        ({"target": {"huh": "a:B"}}, "PEP 440"),
        ({"method": None}, "replaces nothing"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], expected: str) -> None:
    patch = declare(**changes)
    if "method" in changes:
        del patch.method  # type: ignore[attr-defined]
    with pytest.raises(DeclarationError, match=expected):
        check_declaration(patch)


def test_the_target_may_be_a_class_a_string_or_per_release() -> None:
    assert VLLMPatch["a.b:C"].target_for(Version("1")) == "a.b:C"
    assert declare(target=Version).target == "packaging.version:Version"
    assert VLLMPatch[Version].target_for(Version("1")) == "packaging.version:Version"
    moved = VLLMPatch[{"<0.29": "old:C", ">=0.29,<0.40": "new:C", ">=0.40": None}]
    assert moved.target_for(Version("0.28.0")) == "old:C"
    assert moved.target_for(Version("0.29.0+cpu")) == "new:C"
    assert moved.target_for(Version("0.40.0")) is None


def test_a_release_candidate_has_the_target_of_its_release() -> None:
    moved = VLLMPatch[{"<0.29": "old:C", ">=0.29": "new:C"}]
    assert moved.target_for(Version("0.29.0rc1")) == "new:C"
    assert moved.target_for(Version("0.29.0rc2.dev12+gabc")) == "new:C"
    with pytest.raises(DeclarationError, match="no key of its target holds vLLM 0.30"):
        VLLMPatch[{"<0.29": "old:C"}].target_for(Version("0.30"))


def test_nothing_in_a_patch_is_silently_left_out() -> None:
    class Base(declare()):  # type: ignore[misc]
        def shared(self) -> None: ...

    class Derived(Base):
        def own(self) -> None: ...

    assert set(Derived.overrides()) == {"method", "shared", "own"}
    assert vllm_versions("<0.30")(type("Narrow", (Derived,), {})).versions == ">=0.28,<0.30"
    for odd in (property(lambda self: 1), functools.lru_cache(lambda self: 1), functools.partial(print), 5):
        with pytest.raises(DeclarationError, match="'extra' is neither a field"):
            check_declaration(declare(extra=odd))
    for relied in ("m:f", ["no surface"], {"0.29+": ["m:f"]}):
        with pytest.raises(DeclarationError, match="relies_on"):
            check_declaration(declare(relies_on=relied))
    with pytest.raises(DeclarationError, match="cannot be optional"):
        check_declaration(declare(guards_access=True, required=False))
    with pytest.raises(DeclarationError, match="v-main"):
        check_declaration(declare(fingerprints={"v-main": {}}))


def test_surfaces_are_what_is_replaced_and_relied_on() -> None:
    patch = declare(relies_on={"<0.30": ("m:old",), ">=0.30": ("m:new", "pack.module:Class.method")})
    assert patch.surfaces(Version("0.29")) == ["pack.module:Class.method", "m:old"]
    assert patch.surfaces(Version("0.30")) == ["pack.module:Class.method", "m:new"]
    assert declare(target="pack.module").surfaces(Version("1")) == ["pack.module:method"]
    assert declare(target={"<0.1": "a:B", ">=0.1": None}).surfaces(Version("1")) == []


def test_decorators_narrow_the_versions() -> None:
    assert min_vllm_version("0.28.0")(declare(versions=None)).versions == ">=0.28.0"
    assert vllm_versions("<0.34")(declare()).versions == ">=0.28,<0.34"
    with pytest.raises(DeclarationError, match="0.28.x"):
        min_vllm_version("0.28.x")
    with pytest.raises(DeclarationError, match="PEP 440"):
        vllm_versions("newest")


def test_a_patch_is_never_instantiated_and_explains_a_missing_original() -> None:
    patch = declare()
    with pytest.raises(TypeError, match="never instantiated"):
        patch()
    with pytest.raises(AttributeError, match=r"original has no 'method'; it holds nothing"):
        patch.original.method  # noqa: B018
