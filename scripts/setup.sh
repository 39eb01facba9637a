#!/bin/sh
# Check the prerequisites, then leave a virtual environment with vLLM and vlinders.
# Usage: scripts/setup.sh [--venv DIR] [--vllm VERSION]   (PYTHON chooses the interpreter)
set -eu
PYTHON="${PYTHON:-python3}"

fail() {
    echo "setup: $1" >&2
    exit 1
}

command -v git >/dev/null 2>&1 || fail "git is missing (Debian: apt-get install git)"
command -v "$PYTHON" >/dev/null 2>&1 ||
    fail "$PYTHON is missing: install Python 3.11 to 3.13, or name it: make setup PYTHON=python3.12"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1); Python 3.11 to 3.13 is needed: make setup PYTHON=python3.12"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON has no venv module (Debian: apt-get install python3-venv)"

exec "$PYTHON" "$(dirname "$0")/setup_env.py" "$@"
