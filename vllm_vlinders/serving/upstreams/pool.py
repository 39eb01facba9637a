"""All upstreams of one API server process: their connections, and the looks at their health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.metrics import routing as counts
from vllm_vlinders.metrics.engine_load import KV, RUNNING, WAITING, load_of
from vllm_vlinders.routing.upstreams import Replica, Upstream
from vllm_vlinders.settings import ModelSettings, reveal

_OK = 200
_UNLIMITED = 0
_LOOK_SECONDS = 5
_KEPT_SECONDS = 4  # vLLM's own servers close idle connections after 5: one must not be used as it is closed
_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)


class Pool:
    """The upstreams, by the names of their models.

    Args:
        models: those of the settings that have an upstream.
        log: where failures are told.

    Raises:
        SettingsError: a secret is not there.
    """

    def __init__(self, models: Mapping[str, ModelSettings], log: Any) -> None:
        self.log = log
        self.upstreams = {name: _upstream(name, model) for name, model in models.items() if model.upstream}
        self._clients: dict[str, aiohttp.ClientSession] = {}
        self._looking: asyncio.Task[None] | None = None

    def client(self, upstream: Upstream) -> aiohttp.ClientSession:
        """Return the connections to `upstream`; made when first needed, for the loop that needs them."""
        client = self._clients.get(upstream.name)
        if client is None or client.closed:
            client = self._clients[upstream.name] = _connections(upstream.settings.max_connections)
        return client

    def start(self) -> None:
        """Begin to look at the health of all replicas, again and again."""
        self._looking = asyncio.get_running_loop().create_task(self._watch_all(), context=Context())

    async def close(self) -> None:
        """End that, and the connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for client in self._clients.values():
            await client.close()

    def check(self) -> list[str]:
        """Look at all replicas once, before the server starts; return what is wrong."""

        async def look_at_all() -> list[str | None]:
            async with _connections(_UNLIMITED) as client:
                return await asyncio.gather(*(look(client, *each) for each in self._all()))

        # The loop of the server may be running in this thread.
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(asyncio.run, look_at_all()).result()
        return [problem for problem in found if problem is not None]

    def _all(self) -> Iterable[tuple[Upstream, Replica]]:
        return [(upstream, replica) for upstream in self.upstreams.values() for replica in upstream.replicas]

    async def _watch_all(self) -> None:
        async with _connections(_UNLIMITED) as client:
            await asyncio.gather(*(self._watch(client, *each) for each in self._all()))

    async def _watch(self, client: aiohttp.ClientSession, upstream: Upstream, replica: Replica) -> None:
        while True:
            was = replica.up
            problem = await look(client, upstream, replica)
            counts.set_up(upstream.name, replica.number, up=problem is None)
            if problem is not None and was is not False:
                self.log.error("upstream down", model=upstream.name, problem=problem)
            elif problem is None and was is False:
                self.log.info("upstream up again", model=upstream.name, url=replica.url)
            await asyncio.sleep(upstream.settings.health_seconds)


def _connections(limit: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=_KEPT_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def look(client: aiohttp.ClientSession, upstream: Upstream, replica: Replica) -> str | None:
    """Look at the health of a replica, and at how busy it says it is; return what is wrong with it.

    One that was up and is silent is down the second time only: a busy vLLM may stand still for seconds.
    """
    url = f"{replica.url}{upstream.settings.health_path}"
    try:
        status, _ = await _get(client, upstream, url)
    except _TROUBLE as error:
        first, replica.silent = not replica.silent, isinstance(error, TimeoutError)
        if replica.up and replica.silent and first:
            return None
        replica.up = False
        return f"{url}: {describe(error)}"
    replica.silent = False
    replica.up = status == _OK
    if not replica.up:
        return f"{url} answers {status} (routing.models.{upstream.name}.upstream.health_path)"
    try:
        status, text = await _get(client, upstream, f"{replica.url}/metrics")
        replica.told = read_load(text) if status == _OK else None
    except (*_TROUBLE, ValueError):
        replica.told = None
    return None


async def _get(client: aiohttp.ClientSession, upstream: Upstream, url: str) -> tuple[int, str]:
    headers = {"Accept-Encoding": "identity"}
    if upstream.key is not None:
        headers["Authorization"] = f"Bearer {upstream.key}"
    timeout = aiohttp.ClientTimeout(total=_LOOK_SECONDS)
    async with client.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
        return answer.status, await answer.text(errors="replace")


def read_load(text: str) -> float | None:
    """Return how busy a vLLM is by its metrics, 0 to 1; None if they are not vLLM's."""
    relevant = "\n".join(line for line in text.splitlines() if line.startswith((WAITING, RUNNING, KV)))
    families = text_string_to_metric_families(relevant)
    return load_of((sample.name, sample.value) for family in families for sample in family.samples)


def describe(error: BaseException) -> str:
    """Return what went wrong, in words without addresses."""
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "cannot be connected to"
    return "ended the connection"


def _upstream(name: str, model: ModelSettings) -> Upstream:
    settings = model.upstream
    if settings is None:
        raise SettingsError(f"routing.models.{name}: it has no upstream")
    path = f"routing.models.{name}.upstream"
    key = None if settings.key is None else reveal(settings.key, f"{path}.key")
    urls = tuple(reveal(url, f"{path}.urls.{place}").rstrip("/") for place, url in enumerate(settings.urls))
    return Upstream(name, settings, urls, key, time.monotonic)
