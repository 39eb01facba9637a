"""Made-up vLLM releases as real wheels and sdists, what an index says of them, and patches for them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

BASE = '''
"""Orders requests."""
import os
from vllm.config import LIMIT as limit

WEIGHT: int = 3


class Scheduler:
    """Orders requests."""

    def schedule(self, budget: int = 5, *, fast: bool = False) -> list[int]:
        """Return ids."""
        # the order matters
        chosen = []
        for request in self.waiting:
            if budget <= 0:
                break
            chosen.append(request.id)
            budget -= request.tokens
        return chosen if fast else sorted(chosen)

    def free(self, request):
        self.blocks.release(request.id)
        self.finished.add(request.id)
        return self.blocks.count


def make_queue(policy: str, size: int = 10):
    if policy == "fcfs":
        return list(range(size))
    return sorted(range(size), key=lambda entry: -entry)
'''
PATCHES = """
from vllm_vlinders.patching import VLLMPatch, load_fingerprints

SUPPORTED_VLLM = ">=0.30,<0.33"


class Base(VLLMPatch):
    feature = "order"
    process = "engine_core"
    versions = ">=0.30,<0.33"
    why = upstream = remove_when = "for a test"
    fingerprints = load_fingerprints(__file__)


class Schedule(Base):
    name = "schedule"
    target = "vllm.core:Scheduler"
    relies_on = ("vllm.core:Scheduler.free",)

    def schedule(self, *args, **options): ...


class Queue(Base):
    name = "queue"
    target = "vllm.core"
    required = False

    @staticmethod
    def make_queue(*args, **options): ...


def register_patches():
    return [Schedule, Queue]
"""
SCHEDULE = "vllm.core:Scheduler.schedule"
FREE = "vllm.core:Scheduler.free"
QUEUE = "vllm.core:make_queue"


def package(core: str = BASE, **more: str) -> dict[str, str]:
    """Return the files of a made-up vLLM whose module ``core`` is `core`; `more` are further modules."""
    files = {"vllm/__init__.py": "", "vllm/core.py": core, "vllm/config.py": "LIMIT = 1\n"}
    return files | {f"vllm/{name.replace('__', '/')}.py": text for name, text in more.items()}


def write_package(folder: Path, files: dict[str, str]) -> Path:
    """Write the files of a made-up release into `folder`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def wheel_of(files: dict[str, str]) -> bytes:
    """Return a wheel that holds `files` and, between them, something large that nobody wants."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for number, (name, text) in enumerate(files.items()):
            wheel.writestr(name, text)
            wheel.writestr(zipfile.ZipInfo(f"vllm/binary{number}.so"), bytes(range(256)) * 4096)
    return target.getvalue()


def installable_wheel(project: str, version: str, files: dict[str, str]) -> bytes:
    """Return a wheel that pip installs."""
    info = f"{project.replace('-', '_')}-{version}.dist-info"
    return wheel_of(
        {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
    )


def sdist_of(version: str, files: dict[str, str]) -> bytes:
    """Return an sdist that holds `files`."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as sdist:
        for name, text in files.items():
            content = text.encode()
            member = tarfile.TarInfo(f"vllm-{version}/{name}")
            member.size = len(content)
            sdist.addfile(member, io.BytesIO(content))
    return target.getvalue()


@dataclass
class Index:
    """The index: what it serves, and what was asked of it.

    Attributes:
        files: name to content.
        ranges: whether parts of files may be asked for.
        login: the ``Authorization`` that is needed, if any.
        json: whether the page is JSON (PEP 691) instead of HTML.
        yanked: the files that were withdrawn.
        asked: path and range of each request.
        sent: bytes sent so far.
        hold: whether to keep requests for files waiting until `go`; `held` is set when one does.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    login: str = ""
    json: bool = False
    yanked: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    hold: bool = False
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def publish(self, version: str, files: dict[str, str], *, wheel: bool = True, sdist: bool = True) -> None:
        """Offer a release."""
        if wheel:
            self.files[f"vllm-{version}-cp38-abi3-manylinux_2_28_x86_64.whl"] = wheel_of(files)
        if sdist:
            self.files[f"vllm-{version}.tar.gz"] = sdist_of(version, files)

    def answer(self, path: str, asked: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        self.asked.append((path, asked))
        if path.startswith("/simple/"):
            if self.json:
                return (
                    200,
                    {"Content-Type": "application/vnd.pypi.simple.v1+json"},
                    self._json_page().encode(),
                )
            return 200, {"Content-Type": "text/html"}, self._page().encode()
        if self.hold:
            self.held.set()
            self.go.wait(60)
        content = self.files.get(path.removeprefix("/files/"))
        if content is None:
            return 404, {}, b""
        found = re.match(r"bytes=(\d*)-(\d*)$", asked) if self.ranges else None
        if found is None:
            return 200, {}, content
        first, last = found.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        end = int(last) + 1 if first and last else len(content)
        part = content[start:end]
        return 206, {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"}, part

    def _json_page(self) -> str:
        files = [{"filename": name, "url": f"../../files/{name}", "hashes": {}} for name in self.files]
        return json.dumps({"files": files})

    def _page(self) -> str:
        links = []
        for name, content in self.files.items():
            digest = hashlib.sha256(content).hexdigest()
            extra = ' data-yanked="broken"' if name in self.yanked else ""
            links.append(f'<a href="../../files/{name}#sha256={digest}"{extra}>{name}</a>')
        return f"<html><body>{' '.join(links)}</body></html>"
