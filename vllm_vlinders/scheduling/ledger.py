"""Who has been served how much: the virtual token counters of tenants.

"Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024, arXiv 2401.00588), algorithm 2:
the tenant with the lowest counter is next, what it is served raises its counter, and a tenant that
returns from idling is lifted to the lowest counter of those who wait, so that idling saves up nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from vllm_vlinders.lazy_heap import LazyHeap

_IDLE_KEPT = 1024


class Ledger:
    """Weighted service by tenant.

    Args:
        weights: a tenant's share; tenants that are not named have that of ``default``, else 1.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._default = self._weights.get("default", 1.0)
        self._served: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._order: LazyHeap[str] = LazyHeap()
        self._last = 0.0

    def weight(self, tenant: str) -> float:
        """Return the weight of `tenant`."""
        return self._weights.get(tenant, self._default)

    def served(self, tenant: str) -> float:
        """Return the weighted service of `tenant` so far, lifts included."""
        return self._served.get(tenant, 0.0)

    def charge(self, tenant: str, service: float) -> None:
        """Note that `tenant` was served `service` (weighted tokens)."""
        share = service / self.weight(tenant)
        self._served[tenant] = self._served.get(tenant, 0.0) + share

    def arrive(self, tenant: str) -> None:
        """Note a new request of `tenant`; lift the tenant if it has been idle."""
        if not self._waiting.get(tenant):
            self._served[tenant] = max(self.served(tenant), self._floor())
        self.wait(tenant)

    def wait(self, tenant: str) -> None:
        """Note that a request of `tenant` waits; one that returns lifts nobody."""
        count = self._waiting.get(tenant, 0)
        self._waiting[tenant] = count + 1
        if not count:
            self._order.push(tenant, self.served(tenant))

    def leave(self, tenant: str) -> None:
        """Note that a request of `tenant` waits no longer."""
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]
            self._order.discard(tenant)
            self._last = self.served(tenant)
            self._forget_idle()

    def _floor(self) -> float:
        """Return the lowest counter of those who wait; if none does, that of the last who did."""
        return least_served(self._order, self)[1] if self._order else self._last

    def _forget_idle(self) -> None:
        """Drop idle tenants that a lift would raise anyway: memory is bounded by the tenants that wait."""
        if len(self._served) <= 2 * len(self._waiting) + _IDLE_KEPT:
            return
        floor = self._floor()
        self._served = {
            tenant: served
            for tenant, served in self._served.items()
            if tenant in self._waiting or served > floor
        }


def least_served(order: LazyHeap[str], ledger: Ledger) -> tuple[str, float]:
    """Return the first tenant in `order` and its counter, after moving those whose counter has risen.

    Raises:
        IndexError: `order` is empty.
    """
    while True:
        tenant, key = order.first_with_key()
        served = ledger.served(tenant)
        if served <= key:
            return tenant, served
        order.push(tenant, served)
