"""Where API keys are kept: SQLite, PostgreSQL, or a YAML file."""

from __future__ import annotations

from vllm_vlinders.auth.store.base import Changes, KeyStore
from vllm_vlinders.settings import KeySettings, reveal

__all__ = ["Changes", "KeyStore", "open_store"]


def open_store(settings: KeySettings) -> KeyStore:
    """Open the store of the settings, and make or migrate its tables where they are not as needed.

    Raises:
        SettingsError: the store's URL cannot be read or is not allowed.
        StoreError: the store does not answer, or is not a store of keys.
    """
    url = reveal(settings.store, "auth.keys.store")
    if url.startswith("yaml:///"):
        from vllm_vlinders.auth.store.yaml_file import YamlStore

        return YamlStore(url.removeprefix("yaml://"))
    from vllm_vlinders.auth.store.sql import SqlStore

    return SqlStore(url)
