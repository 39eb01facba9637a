"""Who calls, once known."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@/-]{0,63}\Z")
"""What tenants and principals may be called."""
NAME_RULE = "1 to 64 of the letters A-Z a-z 0-9 . _ @ / -, the first a letter or digit"


class Principal(NamedTuple):
    """One caller.

    Attributes:
        name: unique; ``jwt:…`` for the subject of a token, ``api-key-N`` for a key of the command line.
        tenant: who pays.
        role: the name of its role.
        key_id: the id of the API key that was used, or None.
    """

    name: str
    tenant: str
    role: str
    key_id: str | None = None
