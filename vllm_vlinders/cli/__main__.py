"""``python -m vllm_vlinders.cli``."""

import sys

from vllm_vlinders.cli import main

sys.exit(main())
