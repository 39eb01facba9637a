"""Policies whose order is settled when a request arrives."""

from __future__ import annotations

from typing import ClassVar

from vllm_vlinders.scheduling.bands import BANDS
from vllm_vlinders.scheduling.policies.base import KeyPolicy, Surroundings
from vllm_vlinders.scheduling.ticket import Ticket

AGED_TOKENS = 1024
"""Under `sjf`: how many tokens of work ``aging_seconds`` of waiting outweigh."""
_LEARNING = 0.1


class FirstComeFirstServed(KeyPolicy):
    """``fcfs``: by arrival alone, as vLLM's own queue."""

    def key(self, ticket: Ticket) -> int:  # noqa: ARG002 - the order does not depend on it
        """Return the same for all: their places decide."""
        return 0


class ByPriority(KeyPolicy):
    """``priority``: by priority, which grows with waiting (`bands`)."""

    by_priority: ClassVar[bool] = True

    def key(self, ticket: Ticket) -> float:
        """Return the moment from which it counts as waiting."""
        return ticket.since


class ShortestJobFirst(KeyPolicy):
    """``sjf``: the least predicted work first, with aging.

    Work is the prompt plus the expected output: the mean of the tenant's recent outputs (an
    exponential moving average), at most what the request allows; without experience, the latter.
    A request of w tokens is overtaken only by those that arrive within ``w / 1024 * aging_seconds``.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._tokens_per_second = AGED_TOKENS / surroundings.settings.aging_seconds
        self._outputs: dict[str, float] = {}

    def key(self, ticket: Ticket) -> float:
        """Return the work, later arrivals counting as more of it."""
        expected = min(self._outputs.get(ticket.tenant, ticket.max_tokens), ticket.max_tokens)
        return ticket.prompt_tokens + expected + ticket.arrival * self._tokens_per_second

    def finished(self, ticket: Ticket, output_tokens: int) -> None:
        """Move the tenant's mean output towards `output_tokens`."""
        mean = self._outputs.get(ticket.tenant, float(output_tokens))
        self._outputs[ticket.tenant] = mean + _LEARNING * (output_tokens - mean)


class EarliestDeadlineFirst(KeyPolicy):
    """``deadline``: the earliest deadline first.

    A request without one counts as due after five times ``aging_seconds``, so none waits for ever.
    """

    def key(self, ticket: Ticket) -> float:
        """Return the moment it is due."""
        if ticket.deadline is not None:
            return ticket.deadline
        return ticket.arrival + len(BANDS) * self.surroundings.settings.aging_seconds
