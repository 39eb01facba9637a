"""The usage ledger of this API server process."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from vllm_vlinders.logs import make_logger
from vllm_vlinders.metrics.catalogue import USAGE_LOST, USAGE_UP
from vllm_vlinders.metrics.families import counter, gauge
from vllm_vlinders.settings import Settings, state_folder
from vllm_vlinders.usage.ledger import UsageLedger

if TYPE_CHECKING:  # it brings SQLAlchemy
    from vllm_vlinders.usage.store import UsageStore

_ledger: UsageLedger | None = None


def open_ledger(settings: Settings) -> None:
    """Start to keep the ledger that `settings` ask for. A store that does not answer is waited for.

    Raises:
        SettingsError: `usage.store` is no URL of a database that is known.
    """
    global _ledger  # noqa: PLW0603 -- one per process, by nature
    if _ledger is not None:
        _ledger.stop()
        _ledger = None
    if not settings.usage.enabled:
        return
    url = settings.usage.url()
    if settings.usage.store is not None:
        from vllm_vlinders.database import check_url

        check_url(url, "usage.store")
    log = make_logger(settings.logging)

    def on_problem(problem: str | None) -> None:
        gauge(USAGE_UP).set(0 if problem else 1)
        if problem:
            log.error("usage ledger", problem=problem, effect="usage stays in memory until it can be stored")
        else:
            log.info("usage ledger", state="stored again")

    def on_loss(requests: int) -> None:
        counter(USAGE_LOST).inc(requests)
        if requests:
            log.error("usage ledger", lost_requests=requests)

    folder = state_folder() / f"usage-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    on_loss(0)
    gauge(USAGE_UP).set(1)
    try:
        _ledger = UsageLedger(partial(_open, url), folder, on_problem, on_loss)
    except OSError as error:
        problem = f"{folder} cannot be written: {error.strerror}"
        log.warning("usage ledger", problem=problem, effect="what a killed process loses is not counted")
        _ledger = UsageLedger(partial(_open, url), None, on_problem, on_loss)
    _ledger.start()


def active_ledger() -> UsageLedger | None:
    """Return the ledger of this process; None where none is kept."""
    return _ledger


def _open(url: str) -> UsageStore:
    from vllm_vlinders.usage.store import UsageStore

    return UsageStore(url)
