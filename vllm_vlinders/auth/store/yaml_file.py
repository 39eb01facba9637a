"""Keys in a YAML file that somebody else writes: read-only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vllm_vlinders.auth.keys import KeyRecord
from vllm_vlinders.auth.moments import LATEST
from vllm_vlinders.auth.store.base import Changes
from vllm_vlinders.errors import KeyRequestError, StoreError

_Moment = Annotated[float, Field(ge=0, lt=LATEST, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    principal: str = ""
    tenant: str
    role: str
    label: str = ""
    created: _Moment = 0
    not_before: _Moment | None = None
    expires: _Moment | None = None
    revoked: _Moment | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[_Entry]


class YamlStore:
    """The file ``{keys: [{id, digest, tenant, role, …}]}``; read again when it has changed.

    Raises:
        StoreError: it cannot be read, or is of another form.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, ...] | None = None
        self._version = 0
        self._records: dict[str, KeyRecord] = {}
        self._read_if_changed()

    def changes(self, since: int) -> Changes:
        """Return all records if the file has changed since."""
        self._read_if_changed()
        if since == self._version:
            return Changes(since, [])
        return Changes(self._version, list(self._records.values()), complete=True)

    def add(self, record: KeyRecord, *, replaced: KeyRecord | None = None) -> None:  # noqa: ARG002 -- as in put
        """Refuse."""
        self._refuse()

    def put(self, record: KeyRecord) -> None:  # noqa: ARG002 -- all that is asked to write is refused
        """Refuse."""
        self._refuse()

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record of that id."""
        self._read_if_changed()
        return self._records.get(key_id)

    def all(self) -> Iterable[KeyRecord]:
        """Return all records."""
        self._read_if_changed()
        return list(self._records.values())

    def touch(self, uses: Mapping[str, float]) -> None:
        """Do nothing: the file is not ours to write."""

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _refuse(self) -> NoReturn:
        raise KeyRequestError(
            f"the key store {self._path} is read-only: edit the file (`vlinders keys entry` makes an entry)",
            "store",
        )

    def _read_if_changed(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            records = _parse(yaml.safe_load(self._path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise StoreError(f"the key store {self._path} cannot be read: {type(error).__name__}") from None
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"]))
            raise StoreError(f"the key store {self._path}: {where}: {detail['msg']}") from None
        self._records, self._seen = records, seen
        self._version += 1


def _parse(tree: Any) -> dict[str, KeyRecord]:
    entries = _File.model_validate(tree).keys
    return {
        entry.id: KeyRecord(**{**entry.model_dump(), "principal": entry.principal or entry.id})
        for entry in entries
    }
