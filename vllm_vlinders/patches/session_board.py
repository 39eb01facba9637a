"""The board of a scheduler of vLLM: what ``/vlinders/sessions`` shows of its engine core."""

from __future__ import annotations

import time
from typing import Any

from vllm_vlinders.metrics.sessions import show_blocks, show_tokens
from vllm_vlinders.patches.engine_counts_file import counts_file
from vllm_vlinders.patching.lifecycle import publish_facts
from vllm_vlinders.sessions.board import Board
from vllm_vlinders.sessions.retention import Retention

SHOW_SECONDS = 1.0


def board_of(scheduler: Any) -> Board:
    """Return the board, which lives as long as the scheduler."""
    board: Board | None = getattr(scheduler, "vlinders_board", None)
    if board is None:
        board = scheduler.vlinders_board = Board()
    return board


def keeps_other_blocks(scheduler: Any) -> bool:
    """Tell whether other blocks are kept than the board last showed."""
    retention = _retention(scheduler)
    return retention is not None and retention.changed


def show(scheduler: Any, board: Board) -> None:
    """Publish the board: at most once in `SHOW_SECONDS`, and when nothing is left to do."""
    now = time.monotonic()
    if now - board.shown_at >= SHOW_SECONDS or not scheduler.requests:
        retention = _retention(scheduler)
        publish_facts("sessions", board.describe(retention, now))
        _expose(board, retention)


def _retention(scheduler: Any) -> Retention | None:
    return getattr(scheduler.kv_cache_manager.block_pool.free_block_queue, "retention", None)


def _expose(board: Board, retention: Retention | None) -> None:
    file = counts_file()
    if file is None:
        return
    for of, (prompt, hits) in board.totals().items():
        show_tokens(file, of, prompt, hits)
    if retention is not None:
        show_blocks(file, retention.counts)
