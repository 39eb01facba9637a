"""Write the table of metrics into docs/operations.md, from the code."""

from __future__ import annotations

import re
from pathlib import Path

from vllm_vlinders.metrics.catalogue import rows

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
_TABLE = re.compile(r"(?<=<!-- metrics -->\n)(\|.*\n)*")

if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    table = "".join(f"{row}\n" for row in rows())
    PAGE.write_text(_TABLE.sub(lambda _: table, text, count=1), encoding="utf-8")
