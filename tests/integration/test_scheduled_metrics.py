"""The metrics of a real server, against what its clients counted."""

from __future__ import annotations

import pytest

from second_count import REQUESTS, Exposed, Sent, check_counts, compare, count, mixed_load, risen, settled
from server import LORA_NAME, NAME, Server

pytestmark = pytest.mark.slow
WITHIN = 0.02
ON_THE_WAY_SECONDS = 0.05
"""What a request may spend between client and server on a busy machine."""
ATTEMPTS = 4


def test_what_is_counted_is_what_the_clients_counted(scheduled: Server) -> None:
    check_counts(scheduled, mixed_load())


def test_labels_say_model_band_and_route(scheduled: Server) -> None:
    load = [
        Sent("labels", 0),
        Sent("labels", 70, body={"model": LORA_NAME}),
        Sent("labels", 95),
        Sent("labels", 1000),
    ]
    _, before, after = compare(scheduled, load)

    of = ("tenant", "model", "band", "route", "status")
    assert risen(after.by(REQUESTS, *of), before.by(REQUESTS, *of)) == {
        ("labels", NAME, "normal", "none", "200"): 1,
        ("labels", LORA_NAME, "medium", "none", "200"): 1,
        ("labels", NAME, "high", "none", "200"): 1,
        ("labels", NAME, "urgent", "none", "200"): 1,
    }
    queued = risen(
        after.by("vlinders_queue_seconds_count", "tenant", "band"),
        before.by("vlinders_queue_seconds_count", "tenant", "band"),
    )
    assert queued == {("labels", band): 1 for band in ("normal", "medium", "high", "urgent")}


def off(ours: float, theirs: float, requests: int) -> float:
    """Return by what part two sums differ, beyond what requests may spend on their way."""
    return max(0.0, abs(ours - theirs) - requests * ON_THE_WAY_SECONDS) / theirs


def test_times_are_those_that_the_clients_saw(scheduled: Server) -> None:
    """The machine may be busy with others: one of some loads must agree in all three sums."""
    load = [Sent("timed", 0, body={"stream": True, "max_tokens": 80})] * 18
    found = []
    for _ in range(ATTEMPTS):
        tally, before, after = compare(scheduled, load)
        sums = [
            (
                family,
                after.by(f"{family}_sum", "tenant")["timed"] - before.by(f"{family}_sum", "tenant")["timed"],
            )
            for family in (
                "vlinders_response_seconds",
                "vlinders_time_to_first_token_seconds",
                "vlinders_inter_token_seconds",
            )
        ]
        theirs = (tally.response["timed"], tally.first_token["timed"], tally.gaps["timed"])
        found.append(
            {name: off(ours, seen, len(load)) for (name, ours), seen in zip(sums, theirs, strict=True)}
        )
        if max(found[-1].values()) <= WITHIN:
            break
    print(found)
    assert min(max(each.values()) for each in found) <= WITHIN, found


def test_what_the_engine_core_counts_is_exposed(scheduled: Server) -> None:
    names = ("vlinders_shed_total", "vlinders_aged_total", "vlinders_preemptions_total")
    before = Exposed(scheduled)
    assert {sample.name for sample in before.samples} >= set(names), "there from the start, at 0"

    load = [Sent("late", 0, body={"max_tokens": 300})] * 5
    load += [Sent("late", 0, deadline_ms=1)] * 5
    tally = count(scheduled, load)
    after = settled(scheduled, before, len(load))

    refused = tally.requests["late", "503"]
    assert after.total(names[0]) - before.total(names[0]) == refused > 0
