"""How the commands print: tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH_IN_PIPES = 200


def print_json(value: Any) -> None:
    """Print `value` as JSON."""
    print(json.dumps(value, indent=2))


def print_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
    """Print one line per row under the names of the columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    width = None if sys.stdout.isatty() else _WIDTH_IN_PIPES
    Console(markup=False, highlight=False, width=width).print(table)
