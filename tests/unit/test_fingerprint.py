from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vllm_vlinders.patching import fingerprint
from vllm_vlinders.patching.fingerprint import SourceTree, find_bindings, fingerprint_nodes

ORIGINAL = '''
class Scheduler:
    """Orders requests."""

    @property
    def schedule(self, budget: int = 5, *, fast=False) -> list[int]:
        """Return ids."""
        # the order matters
        text = f"a {budget!r:>{10}} b" "c"
        return [budget, 1.5, b"x", text] if fast else []
'''
SAME = [
    ORIGINAL.replace("# the order matters", "# another comment"),
    ORIGINAL.replace('"""Return ids."""', '"""Something else."""'),
    ORIGINAL.replace(
        "budget: int = 5, *, fast=False", "\n        budget: int = 5,\n        *,\n        fast=False,\n    "
    ),
    "import os\n" + ORIGINAL,
    ORIGINAL + "    def other(self): ...\n",
]
DIFFERENT = [
    ORIGINAL.replace("budget: int = 5", "budget: int = 6"),
    ORIGINAL.replace("fast=False", "fast=True"),
    ORIGINAL.replace("@property", "@cached"),
    ORIGINAL.replace("    def", "    async def"),
    ORIGINAL.replace("1.5", "1.25"),
    ORIGINAL.replace('b"x"', '"x"'),
    ORIGINAL.replace("!r", "!s"),
    ORIGINAL.replace("return [", "return ["[:-1] + "[0, "),
    ORIGINAL.replace("*, fast=False", "fast=False"),
]


def of(source: str, name: str = "Scheduler.schedule") -> str:
    found = find_bindings(ast.parse(source), name)
    assert found
    return fingerprint_nodes(found)


@pytest.mark.parametrize("source", SAME)
def test_comments_docstrings_formatting_and_neighbours_do_not_count(source: str) -> None:
    assert of(source) == of(ORIGINAL)


@pytest.mark.parametrize("source", DIFFERENT)
def test_whatever_may_change_the_meaning_counts(source: str) -> None:
    assert of(source) != of(ORIGINAL)


def test_every_binding_counts_also_under_if_try_and_with() -> None:
    source = "if X:\n    def f(): return 1\nelse:\n    def f(): return 2\n"
    assert of(source, "f") != of(source.replace("1", "3"), "f")
    assert of(source, "f") != of(source.replace("2", "3"), "f")
    getter = "class C:\n    @property\n    def p(self): return 1\n    @p.setter\n    def p(self, x): pass\n"
    assert of(getter, "C.p") != of(getter.replace("1", "2"), "C.p")
    assert of("try:\n    import a as f\nexcept E:\n    f = None\n", "f") != of("f = None", "f")
    assert of("with a:\n    if b:\n        def f(): return 1\n", "f") == of("def f(): return 1\n", "f")


def test_what_is_not_there_has_none(tmp_path: Path) -> None:
    (tmp_path / "pack.py").write_text("def f(): ...\n")
    tree = SourceTree(tmp_path)
    assert tree.fingerprint("pack:f") is not None
    assert tree.fingerprint("pack:g") is None
    assert tree.fingerprint("pack.sub:f") is None
    assert tree.fingerprint("other:f") is None


def test_source_is_read_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "inner.py").write_text("raise SystemExit('imported')\ndef f(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert SourceTree().fingerprint("explosive.inner:f") is not None
    assert "explosive" not in sys.modules


def test_cached_fingerprints_follow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pack.py"
    path.write_text("def f(): return 1\n")
    first = _with_cache(tmp_path).fingerprint("pack:f")
    tree = _with_cache(tmp_path)
    tree.fingerprint("pack:f")
    tree.save()

    def never(_nodes: object) -> str:
        raise AssertionError("not from the cache")

    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "fingerprint_nodes", never)
        assert _with_cache(tmp_path).fingerprint("pack:f") == first
    times = path.stat()
    path.write_text("def f(): return 2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as images with normalised times have it
    assert _with_cache(tmp_path).fingerprint("pack:f") != first


def test_a_spoilt_or_unwritable_cache_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "pack.py").write_text("def f(): ...\n")
    expected = SourceTree(tmp_path).fingerprint("pack:f")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fingerprints.json").write_text("{spoilt")
    assert _with_cache(tmp_path).fingerprint("pack:f") == expected
    blocked = SourceTree(tmp_path, cache=tmp_path / "pack.py" / "folder")
    assert blocked.fingerprint("pack:f") == expected
    blocked.save()


def _with_cache(root: Path) -> SourceTree:
    return SourceTree(root, cache=root / "cache")


PROBE = """
import ast, json, sys, types
sys.path.insert(0, sys.argv[1])
sys.modules["vllm_vlinders"] = package = types.ModuleType("vllm_vlinders")
package.__path__ = [sys.argv[1] + "/vllm_vlinders"]
sys.modules["vllm_vlinders.patching"] = inner = types.ModuleType("vllm_vlinders.patching")
inner.__path__ = [sys.argv[1] + "/vllm_vlinders/patching"]
from vllm_vlinders.patching.fingerprint import fingerprint_nodes
nodes = [n for path in sys.argv[2:] for n in ast.walk(ast.parse(open(path, "rb").read()))
         if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
json.dump([fingerprint_nodes([n]) for n in nodes], sys.stdout)
"""


def _other_pythons() -> dict[str, str]:
    """Return the other supported Pythons of this machine, by version."""
    installed = Path(os.environ.get("PYENV_ROOT", "/nowhere")).glob("versions/3.1[1-3]*/bin/python")
    named = filter(None, (shutil.which(f"python3.{minor}") for minor in (11, 12, 13)))
    found = {}
    for path in (*map(str, installed), *named):
        ask = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(ask, capture_output=True, text=True)
        if done.returncode == 0:
            found.setdefault(done.stdout.strip(), path)
    found.pop(f"{sys.version_info.major}.{sys.version_info.minor}", None)
    return found


def test_fingerprints_are_equal_across_python_versions(tmp_path: Path) -> None:
    """Every function and class of some large modules, by each Python of this machine."""
    root = Path(__file__).parents[2]
    tricky = tmp_path / "tricky.py"
    tricky.write_text(textwrap.dedent(ORIGINAL) + 'def g(x): return f"{x}" "" f"{x:{x}.2f}" "é" \'\\n\'\n')
    files = [tricky, *sorted((root / "vllm_vlinders").rglob("*.py"))]
    tree = SourceTree()
    for module in ("vllm.v1.core.sched.scheduler", "vllm.v1.engine.async_llm", "vllm.engine.arg_utils"):
        path = tree.file_of(module)
        files += [path] if path else []
    others = _other_pythons()
    if not others:
        pytest.skip("no second supported Python on this machine")
    outputs = []
    for python in (sys.executable, *others.values()):
        command = [python, "-c", PROBE, str(root), *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(json.loads(done.stdout))
    assert len(outputs[0]) > 100
    assert all(output == outputs[0] for output in outputs)
