"""Where pip would look for a package: indexes, links, certificates and credentials."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

PYPI = "https://pypi.org/simple"
"""pip's own default index."""
_SETTING = re.compile(r"^(?P<section>.+?)\.(?P<key>[\w-]+)=(?P<quote>['\"])(?P<value>.*)(?P=quote)$")
_SECTIONS = ("global", "download", ":env:")
"""What ``pip download`` obeys; the later wins."""
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What of pip's configuration decides where a package comes from.

    Attributes:
        indexes: addresses of simple indexes, as configured: they may hold credentials.
        find_links: folders or pages with links to archives.
        certificate: a file of certificates to trust; empty for the system's.
        trusted_hosts: hosts whose certificate is not checked.
        timeout: seconds to wait for an answer.
    """

    indexes: tuple[str, ...] = (PYPI,)
    find_links: tuple[str, ...] = ()
    certificate: str = ""
    trusted_hosts: tuple[str, ...] = ()
    timeout: float = _TIMEOUT


def pip_settings() -> PipSettings:
    """Return the settings of the pip of this environment; without one, those of its variables."""
    found = _configured()
    indexes = [] if found.get("no-index", "") in ("1", "true", "yes") else [found.get("index-url") or PYPI]
    indexes += found.get("extra-index-url", "").split() if indexes else []
    return PipSettings(
        indexes=tuple(dict.fromkeys(index.rstrip("/") for index in indexes)),
        find_links=tuple(found.get("find-links", "").split()),
        certificate=found.get("cert", ""),
        trusted_hosts=tuple(found.get("trusted-host", "").split()),
        timeout=float(found.get("default-timeout") or found.get("timeout") or _TIMEOUT),
    )


def _configured() -> dict[str, str]:
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sections: dict[str, dict[str, str]] = {name: {} for name in _SECTIONS}
    for line in done.stdout.splitlines():
        setting = _SETTING.match(line)
        if setting and setting["section"] in sections:
            value = setting["value"].replace("\\n", " ")
            sections[setting["section"]][setting["key"]] = value
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            sections[":env:"][name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {key: value for name in _SECTIONS for key, value in sections[name].items()}
