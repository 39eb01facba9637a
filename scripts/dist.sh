#!/bin/sh
# Build the wheel and the sdist, check both, and try the wheel in an environment of its own.
# Usage: scripts/dist.sh PYTHON   (one that has `build` and `twine`)
set -eu
cd "$(dirname "$0")/.."
python="$1"

clean="$(mktemp -d)"
trap 'rm -rf "$clean"' EXIT

# Run a command; show its output only if it fails.
quietly() {
    "$@" >"$clean/log" 2>&1 || { cat "$clean/log"; exit 1; }
}

rm -rf dist build
quietly "$python" -m build --no-isolation --outdir dist .
rm -rf build
"$python" -m twine check --strict dist/*

"$python" -m venv "$clean/venv"
quietly "$clean/venv/bin/pip" install dist/*.whl
cd "$clean"
venv/bin/vlinders --help >/dev/null
venv/bin/python -c 'import vllm_vlinders; print("installed", vllm_vlinders.__version__)'
cd - >/dev/null
ls dist
