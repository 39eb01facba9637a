"""Who is next: the scheduling policies, chosen by ``scheduler.policy``."""

from __future__ import annotations

from importlib import import_module

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.scheduling.policies.base import KeyPolicy, Policy, Surroundings
from vllm_vlinders.scheduling.policies.by_key import (
    ByPriority,
    EarliestDeadlineFirst,
    FirstComeFirstServed,
    ShortestJobFirst,
)
from vllm_vlinders.scheduling.policies.fair import Fair
from vllm_vlinders.scheduling.policies.round_robin import RoundRobin

__all__ = ["POLICIES", "KeyPolicy", "Policy", "Surroundings", "policy_class"]

POLICIES: dict[str, type[Policy]] = {
    "fcfs": FirstComeFirstServed,
    "priority": ByPriority,
    "fair": Fair,
    "sjf": ShortestJobFirst,
    "round_robin": RoundRobin,
    "deadline": EarliestDeadlineFirst,
}


def policy_class(name: str) -> type[Policy]:
    """Return the policy of that name: one of `POLICIES`, or ``module:Class``.

    Raises:
        SettingsError: there is none, or it is no `Policy`.
    """
    if name in POLICIES:
        return POLICIES[name]
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        message = f"scheduler.policy: {name!r} cannot be imported: {type(error).__name__}: {error}"
        raise SettingsError(message) from error
    if not (isinstance(found, type) and issubclass(found, Policy)):
        message = f"scheduler.policy: {name!r} is not a subclass of vllm_vlinders.scheduling.policies.Policy"
        raise SettingsError(message)
    return found
