"""Parse ``vllm serve MODEL --config FILE`` as vLLM does, for each FILE, and print a line of JSON each."""

from __future__ import annotations

import json
import sys

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
subparsers = parser.add_subparsers(dest="subparser")
ServeSubcommand().subparser_init(subparsers)
for file in sys.argv[1:]:
    parsed = vars(parser.parse_args(["serve", "some/model", "--config", file]))
    print(json.dumps({name: value for name, value in parsed.items() if isinstance(value, int | float | str)}))
