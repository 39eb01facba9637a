"""Models that are answered elsewhere: their replicas, how each is, and which one is next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from vllm_vlinders.routing.breaker import Breaker
from vllm_vlinders.settings import UpstreamSettings

_ROOM = 16
_SPILL = 8


@dataclass(eq=False)
class Replica:
    """One server.

    Attributes:
        url: up to and without ``/v1``.
        number: its place among the replicas, from 1.
        breaker: whether it has failed of late.
        up: what the last look at its health said; None: nobody has looked yet.
        in_flight: requests of this process that it is answering.
        told: how busy it says it is, 0 to 1; None where it does not say.
        silent: whether the last look at its health was not answered in time.
    """

    url: str
    number: int
    breaker: Breaker
    up: bool | None = None
    in_flight: int = 0
    told: float | None = None
    silent: bool = False

    def ready(self, now: float) -> bool:
        """Tell whether a request may be sent to it."""
        return self.up is not False and self.breaker.ready(now)

    @property
    def load(self) -> float:
        """How busy it is, 0 to 1: what it says, or what is sent to it, whichever is more."""
        return max(self.told or 0.0, self.in_flight / (self.in_flight + _ROOM))


@dataclass(eq=False)
class Upstream:
    """The replicas of one model.

    Attributes:
        name: the model, as requests here call it.
        settings: where it is.
        key: what is shown to it, or None.
        clock: the time, in seconds.
    """

    name: str
    settings: UpstreamSettings
    urls: tuple[str, ...]
    key: str | None
    clock: Callable[[], float]
    replicas: tuple[Replica, ...] = field(init=False)
    _turn: int = 0

    def __post_init__(self) -> None:
        self.replicas = tuple(
            Replica(url, number, Breaker(self.settings.failures, self.settings.rest_seconds))
            for number, url in enumerate(self.urls, 1)
        )

    @property
    def model(self) -> str:
        """Its name there."""
        return self.settings.model or self.name

    @property
    def usable(self) -> bool:
        """Whether any replica may be asked."""
        now = self.clock()
        return any(replica.ready(now) for replica in self.replicas)

    @property
    def load(self) -> float:
        """How busy the least busy one is, 0 to 1."""
        now = self.clock()
        return min((replica.load for replica in self.replicas if replica.ready(now)), default=1.0)

    def choices(self, session: str | None) -> Iterator[Replica]:
        """Yield the replicas to ask, one after the other, as long as the one before has not answered.

        A session has its replica (by rendezvous hashing: when one is lost, only its sessions move), unless
        that is far busier than another; else it is the one with the fewest requests, in turns where equal.
        """
        tried: set[Replica] = set()
        while True:
            now = self.clock()
            ready = [r for r in self.replicas if r not in tried and r.ready(now)]
            if not ready:
                return
            chosen = self._choose(ready, session)
            tried.add(chosen)
            yield chosen

    def _choose(self, ready: list[Replica], session: str | None) -> Replica:
        self._turn += 1
        turn = self._turn
        idle = min(ready, key=lambda r: (r.in_flight, r.told or 0.0, (r.number + turn) % len(self.replicas)))
        if session is None:
            return idle
        own = max(ready, key=lambda replica: _weight(session, replica.url))
        return idle if own.in_flight > idle.in_flight * 2 + _SPILL else own


def _weight(session: str, url: str) -> bytes:
    return blake2b(f"{url}\0{session}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
