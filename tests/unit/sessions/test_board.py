"""sessions/board.py counts by tenant, whoever names them."""

from __future__ import annotations

from vllm_vlinders.sessions.board import Board


def test_ever_new_tenants_are_counted_together_beyond_a_bound() -> None:
    board = Board()
    for number in range(5_000):
        board.count(f"tenant-{number}", 10, 4)
    board.count(None, 7, 1)
    board.count("tenant-3", 10, 4)

    shown = board.describe(None, now=0.0)

    assert len(shown["tenants"]) <= 257
    assert shown["tenants"]["tenant-3"] == {"prompt_tokens": 20, "hit_tokens": 8}
    assert shown["others"] == {"prompt_tokens": 7, "hit_tokens": 1}
    assert board.totals() == {"sessions": (50_010, 20_004), "others": (7, 1)}
