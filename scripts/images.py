"""Build the CPU image for real where no image registry is at hand: base, ours, the company example.

The base holds what vLLM's own CPU image does: Debian by debootstrap, and vLLM in /opt/venv as
``make setup`` installs it. It is kept under its tag and made once. Needs root, buildah and debootstrap.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the environment that has the package may not be made yet

from vllm_release import DEFAULT_VERSION  # noqa: E402 -- needs the path
from vllm_vlinders.compat.pip_settings import PipSettings, pip_settings  # noqa: E402 -- needs the path

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "libgomp1", "libnuma1", "python3", "python3-venv")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
VENV = "/opt/venv"
ISOLATION = "--isolation=chroot"  # works inside of a container too, where namespaces do not


def buildah(*arguments: str) -> str:
    """Run buildah; its progress is shown, its output returned."""
    command = ("buildah", *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"images: buildah {arguments[0]} failed: {done.stdout[-3000:]}")
    return done.stdout.strip()


def exists(tag: str) -> bool:
    """Tell whether the local store has an image of that name."""
    command = ("buildah", "inspect", "--type", "image", tag)
    return not subprocess.run(command, capture_output=True, check=False).returncode


def version() -> str:
    """Return the version of this checkout."""
    text = (ROOT / "vllm_vlinders" / "_version.py").read_text(encoding="utf-8")
    return str(re.findall(r'= "([^"]+)"', text)[0])


def tags(vllm: str) -> dict[str, str]:
    """Return the names of the three images."""
    return {
        "base": f"localhost/vllm-cpu-base:{vllm}",
        "ours": f"localhost/vllm-vlinders:{version()}-vllm{vllm}-cpu",
        "company": f"localhost/acme-vllm:{version()}-vllm{vllm}-cpu",
    }


def pip_conf(settings: PipSettings) -> str:
    """Return a pip.conf by which a container finds packages as this machine does."""
    index, *more = settings.indexes or ("",)
    lines = {
        "index-url": index,
        "extra-index-url": " ".join(more),
        "find-links": " ".join(settings.find_links),
        "trusted-host": " ".join(settings.trusted_hosts),
        "cert": CERTIFICATES if certificates(settings) else "",
        "timeout": f"{settings.timeout:.0f}",
    }
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value)


def certificates(settings: PipSettings) -> str:
    """Return the file of certificates that this machine trusts, if there is one."""
    return next((name for name in (settings.certificate, CERTIFICATES) if name and Path(name).exists()), "")


def volumes(settings: PipSettings) -> list[str]:
    """Return the options that show a container what pip's settings name on this machine."""
    places = [place.removeprefix("file://") for place in settings.find_links]
    # An index on disk links to files beside it.
    places += [str(Path(index[7:]).parent) for index in settings.indexes if index.startswith("file:///")]
    mounts = [f"{place}:{place}" for place in places if place.startswith("/") and Path(place).exists()]
    if found := certificates(settings):
        mounts.append(f"{Path(found).resolve()}:{CERTIFICATES}")
    return mounted(*mounts)


def mounted(*mounts: str) -> list[str]:
    """Return the options that mount ``FROM:TO`` for reading."""
    return [option for mount in mounts for option in ("--volume", f"{mount}:ro")]


@contextmanager
def pip_conf_file(settings: PipSettings) -> Iterator[str]:
    """Provide the file of `pip_conf`; an index may hold credentials, so no image keeps it."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(pip_conf(settings))
        file.flush()
        yield file.name


def make_base(tag: str, vllm: str) -> None:
    """Make the stand-in for vLLM's own CPU image, unless it is there."""
    if exists(tag):
        print(f"images: {tag} is there")
        return
    settings = pip_settings()
    container = buildah("from", "scratch")
    try:
        root = Path(buildah("mount", container))
        include = f"--include={','.join(PACKAGES)}"
        command = ("debootstrap", "--variant=minbase", include, SUITE, str(root))
        subprocess.run(command, check=True)
        with pip_conf_file(settings) as conf:
            mounts = [*volumes(settings), *mounted(f"{ROOT}:/src", f"{conf}:/etc/pip.conf")]
            setup = ("/src/scripts/setup_env.py", "--venv", VENV, "--vllm", vllm, "--vllm-only")
            buildah("run", ISOLATION, *mounts, container, "--", "python3", "-B", *setup)
        # A server on a read-only root cannot keep what it compiles: it would start a minute later.
        compiled = ("python3", "-m", "compileall", "-q", "-j", "0", f"{VENV}/lib")
        buildah("run", ISOLATION, container, "--", "sh", "-c", f"{' '.join(compiled)} || true")
        clean(root)
        path = f"PATH={VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = ("--env", path, "--env", f"VIRTUAL_ENV={VENV}")
        buildah("config", *variables, "--entrypoint", '["vllm", "serve"]', container)
        buildah("commit", "--quiet", "--format", "docker", container, tag)
    finally:
        buildah("rm", container)


def clean(root: Path) -> None:
    """Remove what making the base has left in it."""
    for name in ("setup.log", "setup.stamp", "vllm-cpu-requirements.txt"):
        (root / VENV.lstrip("/") / name).unlink(missing_ok=True)
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder / "partial").mkdir(parents=True)
    for empty in ("src", "etc/pip.conf"):  # where something was mounted
        place = root / empty
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink(missing_ok=True)


def build(dockerfile: str, tag: str, **arguments: str) -> None:
    """Build a Dockerfile of this checkout."""
    settings = pip_settings()
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    with pip_conf_file(settings) as conf:
        secret = ("--secret", f"id=pip_conf,src={conf}")
        # No --layers: buildah's cache does not see that a wheel which RUN mounts has changed.
        options = [ISOLATION, "--format", "docker", "--pull=never", *volumes(settings), *secret, *given]
        buildah("build", *options, "--file", dockerfile, "--tag", tag, ".")


def revision() -> str:
    """Return the commit of this checkout."""
    command = ("git", "rev-parse", "HEAD")
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()


def main() -> None:
    """Build what was asked for, and what that needs; print the names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", choices=("base", "ours", "company"), nargs="?", default="company")
    parser.add_argument("--vllm", default=DEFAULT_VERSION, metavar="VERSION")
    arguments = parser.parse_args()
    for tool in ("buildah", "debootstrap"):
        if shutil.which(tool) is None:
            sys.exit(f"images: {tool} is missing (Debian: apt-get install {tool})")
    if os.geteuid():
        sys.exit("images: a base made by debootstrap needs root")
    names = tags(arguments.vllm)
    wanted = list(names)[: list(names).index(arguments.image) + 1]
    make_base(names["base"], arguments.vllm)
    if "ours" in wanted:
        known = {"VERSION": version(), "REVISION": revision() or "unknown"}
        build("docker/Dockerfile.cpu", names["ours"], BASE=names["base"], **known)
    if "company" in wanted:
        build("docker/company-example/Dockerfile", names["company"], BASE=names["ours"])
    for name in wanted:
        print(f"images: {name}: {names[name]}")


if __name__ == "__main__":
    main()
