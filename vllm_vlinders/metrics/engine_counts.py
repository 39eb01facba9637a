"""What engine cores count, on the ``/metrics`` of the API servers.

Each engine core keeps its counters in a file of the form that prometheus_client has for several
processes. Where vLLM runs several API servers, the file stands in the directory that they all read;
where it runs one, in the run directory, and that API server reads it too. What a process has counted
stays when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_vlinders.metrics.families import Family

_VLLMS = "PROMETHEUS_MULTIPROC_DIR"
_OURS = "VLINDERS_RUN_DIR"
_shown = False


def _own_folder(environ: Mapping[str, str]) -> Path | None:
    run_dir = environ.get(_OURS)
    return Path(run_dir) / "counters" if run_dir else None


class EngineCounts:
    """The counters of this process.

    Raises:
        OSError: there is no place for them.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        from prometheus_client.mmap_dict import MmapedDict

        folder = Path(environ[_VLLMS]) if environ.get(_VLLMS) else _own_folder(environ)
        if folder is None:
            raise FileNotFoundError("there is no run directory")
        folder.mkdir(exist_ok=True)
        file: Any = MmapedDict  # untyped
        self._file = file(str(folder / f"counter_vlinders{os.getpid()}.db"))
        self._keys: dict[tuple[Family, str], str] = {}

    def set(self, family: Family, label: str, count: float) -> None:
        """Write what has been counted so far.

        Args:
            family: a counter.
            label: the value of its one label; of no meaning if it has none.
            count: the whole sum of this process.
        """
        key = self._keys.get((family, label)) or self._key(family, label)
        self._file.write_value(key, count, 0.0)

    def _key(self, family: Family, label: str) -> str:
        from prometheus_client.mmap_dict import mmap_key

        name, labels = family.name.removesuffix("_total"), list(family.labels)
        key = mmap_key(name, family.name, labels, [label] if labels else [], family.meaning)
        self._keys[family, label] = key
        return key


def show_engine_counts(environ: Mapping[str, str] = os.environ) -> None:
    """Let this API server's registry read what the engine cores write."""
    global _shown  # noqa: PLW0603 -- one registry per process, by nature
    from prometheus_client import REGISTRY
    from prometheus_client.multiprocess import MultiProcessCollector

    folder = _own_folder(environ)
    if _shown or environ.get(_VLLMS) or folder is None:
        return  # vLLM's own registry reads that directory
    _shown = True
    folder.mkdir(exist_ok=True)
    collector: Any = MultiProcessCollector  # untyped
    collector(REGISTRY, path=str(folder))
