"""The accounts of one API server process: it reserves, tops up and settles, for each request."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.auth.quota.charge import Charge, Entry, Level, Receipt, Refusal
from vllm_vlinders.auth.quota.ledger import Ledger
from vllm_vlinders.auth.quota.plan import Amount, Plan, used_of
from vllm_vlinders.auth.quota.shared import SharedLedger
from vllm_vlinders.settings import PriceSettings, QuotaSettings

_MOST_PLANS = 10_000


@dataclass(eq=False)
class Account:
    """What one request has reserved.

    Attributes:
        plan: the limits it is held against.
        price: of the model that runs; before one does, of the one that is asked for.
        reserved: what has been counted for it.
        levels: how full the limits were then.
    """

    plan: Plan
    price: PriceSettings
    reserved: Amount
    levels: tuple[Level, ...] = ()
    slots: tuple[Entry, ...] = ()
    local: list[Entry] = field(default_factory=list)
    shared: list[Entry] = field(default_factory=list)

    def counted(self) -> Counter[tuple[str, str]]:
        """Return how much has been counted for it, of each limit by its subject and name."""
        counted: Counter[tuple[str, str]] = Counter()
        for charge, _ in (*self.local, *self.shared):
            counted[charge.subject, charge.limit] += charge.amount
        return counted


class Book:
    """Keeps the accounts, in the ledger of this server and perhaps one that servers share.

    What is counted until it is given back (requests at once) is always counted in this server.

    Args:
        settings: the section ``quotas``.
        windows: the ledger of this server, which may outlive it.
        slots: the ledger of requests at once, which must not.
        shared: the ledger that servers share, or None.
        clock: the time, in seconds since 1970.
    """

    def __init__(
        self,
        settings: QuotaSettings,
        windows: Ledger,
        slots: Ledger,
        shared: SharedLedger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._windows, self._slots, self._shared, self._clock = windows, slots, shared, clock
        self._plans: dict[Principal, Plan] = {}

    def plan(self, principal: Principal) -> Plan:
        """Return the limits of a caller."""
        plan = self._plans.get(principal)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[principal] = Plan(self.settings, principal)
        return plan

    async def open(self, plan: Plan, amount: Amount, price: PriceSettings) -> Account | Refusal:
        """Count one request that may use `amount`, if all limits leave room for it."""
        slots = self._slots.reserve(plan.slots(), self._now())
        if isinstance(slots, Refusal):
            return slots
        account = Account(plan, price, amount, slots=slots.entries)
        charges = plan.windows(1, amount, price)
        try:
            answer = await self._reserve(account, charges)
        except BaseException:
            self._slots.settle(slots.entries, lambda _charge: 0)
            raise
        if isinstance(answer, Refusal):
            self._slots.settle(slots.entries, lambda _charge: 0)
            return answer
        account.levels = answer.levels
        return account

    def top_up(self, account: Account, amount: Amount, price: PriceSettings) -> Refusal | None:
        """Count what `amount` at `price` is more than what `account` has reserved, if there is room for it."""
        whole = account.reserved.most(amount)
        if whole == account.reserved and price is account.price:
            return None
        counted = account.counted()
        needed = account.plan.windows(0, whole, price)
        more = [
            charge._replace(amount=charge.amount - counted[charge.subject, charge.limit]) for charge in needed
        ]
        charges = [charge for charge in more if charge.amount > 0]
        if charges:
            shared = self._shared if account.shared else None
            answer = None if shared is None else shared.reserve_now(charges)
            answer = self._take(account, charges, answer)
            if isinstance(answer, Refusal):
                return answer
        account.reserved, account.price = whole, price
        return None

    def close(self, account: Account, amount: Amount | None) -> None:
        """Put what was really used in the place of what was reserved; None: nothing, not even a request."""

        def used(charge: Charge) -> int:
            return 0 if amount is None else used_of(charge, amount, account.price)

        self._slots.settle(account.slots, lambda _charge: 0)
        if account.local:
            self._windows.settle(account.local, used)
        if account.shared and self._shared is not None:
            self._shared.settle_later(account.shared, used)

    async def levels(self, plan: Plan) -> list[Level]:
        """Return how full the limits are."""
        nothing = plan.windows(0, Amount(), PriceSettings())
        slots = plan.slots(0)
        shared = None if self._shared is None else await self._shared.reserve(nothing)
        windows = shared.levels if isinstance(shared, Receipt) else self._windows.levels(nothing, self._now())
        return [*windows, *self._slots.levels(slots, self._now())]

    @property
    def problem(self) -> str | None:
        """What is wrong with the ledger that servers share, if anything."""
        return None if self._shared is None else self._shared.problem

    def shut(self) -> None:
        """Let go of files and connections."""
        self._windows.close()
        self._slots.close()
        if self._shared is not None:
            self._shared.close()

    async def _reserve(self, account: Account, charges: Sequence[Charge]) -> Receipt | Refusal:
        answer = None if self._shared is None else await self._shared.reserve(charges)
        return self._take(account, charges, answer)

    def _take(
        self, account: Account, charges: Sequence[Charge], answer: Receipt | Refusal | None
    ) -> Receipt | Refusal:
        """Note what the shared ledger has answered; without an answer, do as the settings say."""
        kept = account.shared
        if answer is None:
            if self._shared is not None and self.settings.on_outage == "deny" and charges:
                return Refusal(charges[0], 0, None, outage=True)
            answer, kept = self._windows.reserve(charges, self._now()), account.local
        if isinstance(answer, Receipt):
            kept.extend(answer.entries)
        return answer

    def _now(self) -> int:
        return int(self._clock() * 1000)
