#!/bin/sh
# Look at vLLM, the settings and the patches before a model is loaded; then be `vllm serve`, with the
# arguments as vLLM's own image takes them. `--entrypoint vllm` goes without the look.
set -eu
if ! vlinders doctor; then
    echo "vlinders-serve: not started; the table above says what to mend" >&2
    exit 1
fi
exec vllm serve "$@"
