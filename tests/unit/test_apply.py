from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vllm_vlinders.errors import ApplyError
from vllm_vlinders.patching import VLLMPatch
from vllm_vlinders.patching.apply import Application, apply, when_imported

TARGET = """
    class Engine:
        def step(self, n=1):
            '''Step.'''
            return ("step", n)

        async def fetch(self):
            return "fetched"

        async def stream(self):
            yield 1
            yield 2

        @staticmethod
        def make(x):
            return ("made", x)

        @classmethod
        def name(cls):
            return cls.__name__

        limit = 5

    class Fast(Engine):
        pass

    def build(x):
        return ("built", x)
"""


@pytest.fixture
def target(make_package: Callable[..., Path]) -> ModuleType:
    make_package(acme_engine=TARGET, acme_user="from acme_engine import build\nkept = {'build': build}\n")
    import acme_engine

    module: ModuleType = acme_engine
    return module


class EnginePatch(VLLMPatch):
    name = "engine"

    def step(self: Any, n: int = 1) -> Any:
        return ("patched", EnginePatch.original.step(self, n))

    async def fetch(self: Any) -> Any:
        return "patched " + await EnginePatch.original.fetch(self)

    async def stream(self: Any) -> Any:
        yield 0
        async for item in EnginePatch.original.stream(self):
            yield item

    @staticmethod
    def make(x: Any) -> Any:
        return ("patched", EnginePatch.original.make(x))

    @classmethod
    def name_of(cls) -> str:
        return "patched"


del EnginePatch.name_of


class BuildPatch(VLLMPatch):
    name = "build"

    @staticmethod
    def build(x: Any) -> Any:
        return ("patched", BuildPatch.original.build(x))


def patched(late: bool = False) -> Application:
    return apply(EnginePatch, "acme_engine:Engine", late=late)


async def collect(items: Any) -> list[Any]:
    return [item async for item in items]


def test_every_kind_of_function_is_replaced_and_reaches_its_original(target: Any) -> None:
    application = patched()
    engine = target.Fast()
    assert engine.step(3) == ("patched", ("step", 3))
    assert asyncio.run(engine.fetch()) == "patched fetched"
    assert asyncio.run(collect(engine.stream())) == [0, 1, 2]
    assert target.Engine.make(1) == engine.make(1) == ("patched", ("made", 1))
    assert application.undo()
    assert engine.step() == ("step", 1)
    assert asyncio.run(collect(engine.stream())) == [1, 2]
    assert target.Engine.make(1) == ("made", 1)


def test_closing_a_stream_closes_the_original_at_once(make_package: Callable[..., Path]) -> None:
    make_package(
        acme_stream="""
        closed = []
        class Engine:
            async def stream(self):
                try:
                    yield 1
                    yield 2
                finally:
                    closed.append(True)
    """
    )
    import acme_stream

    class Plain(VLLMPatch):
        async def stream(self: Any) -> Any:
            raise AssertionError
            yield

    application = apply(Plain, "acme_stream:Engine")
    application.replacements[0].switch[0] = False

    async def take_one() -> list[bool]:
        items = acme_stream.Engine().stream()
        assert await anext(items) == 1
        await items.aclose()
        return list(acme_stream.closed)

    assert asyncio.run(take_one()) == [True]


def test_a_constructor_can_be_replaced(make_package: Callable[..., Path]) -> None:
    make_package(acme_made="class Made:\n    def __init__(self, x):\n        self.x = x\n")
    import acme_made

    class Constructor(VLLMPatch):
        def __init__(self: Any, x: int) -> None:
            Constructor.original.__init__(self, x + 1)

    apply(Constructor, "acme_made:Made")
    assert acme_made.Made(1).x == 2


def test_undo_restores_the_very_objects_and_may_be_repeated(target: Any) -> None:
    before = dict(vars(target.Engine))
    application = patched()
    assert vars(target.Engine)["step"] is not before["step"]
    assert application.undo()
    assert dict(vars(target.Engine)) == before
    application.undo()
    assert dict(vars(target.Engine)) == before


def test_the_replacement_looks_like_the_original_and_is_named_in_tracebacks(target: Any) -> None:
    patched()
    step = target.Engine.step
    assert step.__name__ == "step"
    assert step.__doc__ == "Step."
    assert str(inspect.signature(step)) == "(self, n=1)"
    assert inspect.iscoroutinefunction(target.Engine.fetch)
    assert inspect.isasyncgenfunction(target.Engine.stream)
    assert pickle.loads(pickle.dumps(step)) is step
    with pytest.raises(TypeError) as caught:
        target.Engine().step(1, 2, 3)
    assert "vlinders_step" in "".join(traceback.format_exception(caught.value))


def test_a_wrapper_put_on_top_by_another_plugin_survives_apply_and_undo(target: Any) -> None:
    application = patched()
    ours = target.Engine.step

    @functools.wraps(ours)
    def theirs(self: Any, n: int = 1) -> Any:
        return ("theirs", ours(self, n))

    target.Engine.step = theirs
    assert target.Engine().step(2) == ("theirs", ("patched", ("step", 2)))
    assert not application.undo()
    assert target.Engine().step(2) == ("theirs", ("step", 2))


def test_it_stacks_on_a_wrapper_that_was_there_before(target: Any) -> None:
    stock = target.Engine.step
    target.Engine.step = lambda self, n=1: ("theirs", stock(self, n))
    application = patched()
    assert target.Engine().step(2) == ("patched", ("theirs", ("step", 2)))
    assert application.undo()
    assert target.Engine().step(2) == ("theirs", ("step", 2))


def test_copies_of_a_name_are_repaired_when_the_patch_comes_late(target: Any) -> None:
    import acme_user

    sys.modules["acme_engine.user"] = acme_user  # a module of the target's own package
    try:
        application = apply(BuildPatch, "acme_engine", late=True)
        assert acme_user.build(1) == ("patched", ("built", 1))
        assert application.repaired == ["acme_engine.user"]
        assert "dict" in application.held_elsewhere  # acme_user.kept is beyond repair
        assert application.undo()
        assert acme_user.build(1) == ("built", 1)
    finally:
        del sys.modules["acme_engine.user"]


@pytest.mark.parametrize(
    ("place", "attributes", "expected"),
    [
        (
            "acme_engine:Motor",
            {"step": lambda self: None},
            r"acme_engine:Motor does not exist \(no 'Motor'\)",
        ),
        ("acme_engine:Engine", {"halt": lambda self: None}, "'halt', which .* does not define itself"),
        ("acme_engine:Fast", {"step": lambda self: None}, "'step', which .*Fast.* does not define itself"),
        ("acme_engine:Engine", {"make": lambda x: x}, "as a function, but there it is a staticmethod"),
        (
            "acme_engine:Engine",
            {"step": staticmethod(lambda: 1)},
            "as a staticmethod, but there it is a function",
        ),
        ("acme_engine:Engine", {"limit": lambda self: None}, "'limit', which is not a function there"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(
    target: Any, place: str, attributes: dict[str, Any], expected: str
) -> None:
    before = dict(vars(target.Engine))
    patch = type("Bad", (VLLMPatch,), {"name": "bad", "step2": lambda self: None, **attributes})
    del patch.step2  # type: ignore[attr-defined]
    with pytest.raises(ApplyError, match=expected):
        apply(patch, place)
    assert dict(vars(target.Engine)) == before


def test_it_waits_for_the_import(make_package: Callable[..., Path]) -> None:
    make_package(acme_later="x = 1\n")
    calls: list[bool] = []
    assert not when_imported("acme_later:Class", lambda: calls.append(True))
    assert "acme_later" not in sys.modules
    assert calls == []
    import acme_later  # noqa: F401

    assert calls == [True]
    assert when_imported("acme_later:Class", lambda: calls.append(True))
    assert calls == [True, True]
