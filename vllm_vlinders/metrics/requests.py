"""What is counted of each request, once it has ended."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_vlinders.metrics import catalogue, families
from vllm_vlinders.metrics.labels import NONE, LabelValues
from vllm_vlinders.settings import MetricsSettings, QuotaSettings, Settings

if TYPE_CHECKING:
    from prometheus_client import Counter

_MOST_MODELS = 1000
_NO_MORE: Mapping[str, str] = {}
_TOKEN = "jwt:"  # noqa: S105 -- how principals are called that a token names


class Who(NamedTuple):
    """Whose request it was; None: not known."""

    tenant: str | None
    model: str | None = None
    band: str = NONE
    route: str | None = None
    role: str | None = None
    principal: str | None = None


class Tokens(NamedTuple):
    """Tokens of one request, and what they cost; `cached` are part of `prompt`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    cost: float = 0.0


class Times(NamedTuple):
    """Seconds of one request.

    Attributes:
        response: until the end of the answer.
        first_token: until the first token; None if there was none.
        queued: of each of its requests in the engine.
        gaps: for each bucket of `catalogue.INTER_TOKEN`, how many gaps between outputs; empty: none.
        gap_seconds: the sum of those.
    """

    response: float
    first_token: float | None = None
    queued: Sequence[float] = ()
    gaps: Sequence[int] = ()
    gap_seconds: float = 0.0


class _Times:
    """The histograms of a tenant's requests in a band, looked up once: that is most of what it costs."""

    __slots__ = ("first_token", "inter_token", "queue", "response")

    def __init__(self, tenant: str, band: str) -> None:
        self.response, self.first_token, self.inter_token, self.queue = (
            families.histogram(family).labels(tenant, band)
            for family in (catalogue.RESPONSE, catalogue.FIRST_TOKEN, catalogue.INTER_TOKEN, catalogue.QUEUE)
        )

    def observe(self, times: Times) -> None:
        families.observe(self.response, families.SECONDS, times.response)
        if times.first_token is not None:
            families.observe(self.first_token, families.SECONDS, times.first_token)
        for seconds in times.queued:
            families.observe(self.queue, catalogue.QUEUE_SECONDS, seconds)
        if times.gaps:
            families.observe_many(self.inter_token, times.gaps, times.gap_seconds)


class _Usage:
    """The counters of what a tenant uses of a model."""

    __slots__ = ("_cached", "_completion", "_cost", "_prompt")

    def __init__(self, tenant: str, model: str, more: Mapping[str, str], *, costs: bool) -> None:
        names, values = tuple(more), tuple(more.values())
        self._prompt, self._cached, self._completion = (
            families.counter(catalogue.TOKENS, names).labels(tenant, model, kind, *values)
            for kind in ("prompt", "cached", "completion")
        )
        self._cost = families.counter(catalogue.COST, names).labels(tenant, model, *values) if costs else None

    def add(self, tokens: Tokens) -> None:
        if tokens.prompt:
            self._prompt.inc(tokens.prompt)
        if tokens.cached:
            self._cached.inc(tokens.cached)
        if tokens.completion:
            self._completion.inc(tokens.completion)
        if self._cost is not None:
            self._cost.inc(tokens.cost)


class Recorder:
    """Counts requests. Its labels are bounded, and so is its memory.

    Args:
        settings: of metrics.
        quotas: whether tokens cost anything.
        tenants: the names of tenants that have their place from the start.
        folder: where the processes of a server share the values of labels; None: this process keeps its own.
    """

    def __init__(
        self, settings: MetricsSettings, quotas: QuotaSettings, tenants: Sequence[str], folder: Path | None
    ) -> None:
        def values(most: int, name: str, reserved: Sequence[str] = ()) -> LabelValues:
            return LabelValues(most, reserved, folder / name if folder else None)

        self._costs = bool(quotas.prices)
        self._labels = settings.labels
        self._tenants = values(settings.max_tenants, "tenants", tenants)
        self._models = values(_MOST_MODELS, "models")
        self._principals = values(settings.max_tenants, "principals")
        self._active = families.gauge(catalogue.ACTIVE)
        self._series: dict[tuple[Any, ...], tuple[Counter, _Times]] = {}
        self._times: dict[tuple[str, str], _Times] = {}
        self._usage: dict[tuple[str, ...], _Usage] = {}

    def begin(self) -> None:
        """Note that a request has come."""
        self._active.inc()

    def end(self, who: Who, status: int, tokens: Tokens, times: Times) -> None:
        """Note that it has ended, with HTTP status `status`.

        Another process may answer a scrape meanwhile: what a request counts as comes after what it used, and
        that it is active no more comes last.
        """
        try:
            self._record(who, status, tokens, times)
        finally:
            self._active.dec()

    def _record(self, who: Who, status: int, tokens: Tokens, times: Times) -> None:
        tenant, model, more = self.tenant(who.tenant), self._model(who.model), self._principal(who)
        key = (tenant, model, who.band, who.route, status, *more.values())
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._open(tenant, model, who, status, more)
        if tokens.prompt or tokens.completion:
            self._usage_of(tenant, model, more).add(tokens)
        series[1].observe(times)
        series[0].inc()

    def add_tokens(self, who: Who, tokens: Tokens) -> None:
        """Count tokens, and what they cost."""
        tenant, model, more = self.tenant(who.tenant), self._model(who.model), self._principal(who)
        self._usage_of(tenant, model, more).add(tokens)

    def _open(
        self, tenant: str, model: str, who: Who, status: int, more: Mapping[str, str]
    ) -> tuple[Counter, _Times]:
        requests = families.counter(catalogue.REQUESTS, tuple(more))
        place = (tenant, who.band)
        times = self._times.get(place)
        if times is None:
            times = self._times[place] = _Times(*place)
        route = who.route or NONE
        return requests.labels(tenant, model, who.band, route, str(status), *more.values()), times

    def _usage_of(self, tenant: str, model: str, more: Mapping[str, str]) -> _Usage:
        labels = (tenant, model, *more.values())
        usage = self._usage.get(labels)
        if usage is None:
            usage = self._usage[labels] = _Usage(tenant, model, more, costs=self._costs)
        return usage

    def tenant(self, name: str | None) -> str:
        """Return the label of a tenant."""
        return NONE if name is None else self._tenants.of(name)

    def _model(self, name: str | None) -> str:
        return NONE if name is None else self._models.of(name)

    def _principal(self, who: Who) -> Mapping[str, str]:
        """Return the labels of ``metrics.labels``."""
        if not self._labels:
            return _NO_MORE
        return {name: self._value(source, who) for name, source in self._labels.items()}

    def _value(self, source: str, who: Who) -> str:
        if source == "role":
            return who.role or NONE
        if who.principal is None:
            return NONE
        if who.principal.startswith(_TOKEN):
            return _TOKEN.rstrip(":")  # the subject of a token may be a person
        return self._principals.of(who.principal)


def open_recorder(settings: Settings, environ: Mapping[str, str] = os.environ) -> Recorder | None:
    """Return what counts requests by these settings; None where they want none counted."""
    if not settings.metrics.enabled:
        return None
    folder = environ.get("VLINDERS_RUN_DIR")
    named = [*settings.scheduler.tenants, *settings.quotas.tenants]
    tenants = ["default", *sorted(set(named))]
    return Recorder(settings.metrics, settings.quotas, tenants, Path(folder) if folder else None)
