"""What the guard adds to a request: who calls, may they, and is there room.

100,000 keys in the store, 2,000 of them in use; the caller and
its tenant each have two limits. Limit: 60 us at the median,
250 us at the 99th percentile, for authentication and admission together: of the thread's processor time, which
other processes of the machine do not add to.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from vllm_vlinders.auth.key_office import KeyOffice
from vllm_vlinders.auth.store.sql import SqlStore
from vllm_vlinders.auth.store.tables import COUNTER, KEYS
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.serving.access import active_access, install, open_access
from vllm_vlinders.serving.admission import admit
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.guard import authenticate, authorize
from vllm_vlinders.settings import active_settings

NUMBER, ACTIVE = 100_000, 2_000
MEDIAN_SECONDS, P99_SECONDS = 60e-6, 250e-6
LIMITS = {
    "tenants": {
        "default": {
            "requests_per_minute": 10**9,
            "tokens_per_minute": 10**12,
        }
    },
    "principals": {"default": {"requests_per_minute": 10**9, "tokens_per_minute": 10**12}},
}
BODY = json.dumps(
    {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "word " * 200}]}
).encode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder: Path = tmp_path_factory.mktemp("access")
    (folder / "pepper").write_text("a pepper of the benchmark")
    url = f"sqlite:///{folder}/keys.db"
    tree = {
        "auth": {"keys": {"store": url, "pepper": f"file:{folder}/pepper"}, "audit": {"enabled": False}},
        "quotas": LIMITS,
    }
    (folder / "vlinders.yaml").write_text(yaml.safe_dump(tree))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLINDERS_CONFIG", str(folder / "vlinders.yaml"))
        patch.setenv("VLINDERS_RUN_DIR", str(folder))
        active_settings.cache_clear()
        install(open_access(active_settings(), ()))
        access = active_access()
        assert access is not None
        office: KeyOffice = access.office("benchmark")
        made = [office.make(tenant=f"t{number % 500}", role="user") for number in range(NUMBER)]
        store = SqlStore(url)
        with store._database.transaction(write=True) as connection:
            connection.execute(sa.insert(KEYS), [{**asdict(new.record), "change": 1} for new in made])
            connection.execute(sa.update(COUNTER).values(value=1))
        assert access.directory is not None
        start = time.perf_counter()
        access.directory.refresh()
        print(f"\n{NUMBER} keys taken over from SQLite in {time.perf_counter() - start:.2f} s")
        yield [new.key for new in made]
        install(None)
    active_settings.cache_clear()


def exchange_of(key: str) -> Exchange:
    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    headers = [
        (b"host", b"localhost:8000"),
        (b"authorization", f"Bearer {key}".encode()),
        (b"content-type", b"application/json"),
        (b"user-agent", b"benchmark"),
        (b"content-length", str(len(BODY)).encode()),
    ]
    path = "/v1/chat/completions"
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
    return Exchange(scope, RequestContext("x"), receive)


def pass_stages(exchange: Exchange) -> dict[str, float]:
    """Pass the stages; return the seconds of each. Nothing waits: no event loop takes part in the figures."""
    seconds = {}
    for stage in (authenticate, authorize, admit):
        start = time.thread_time()
        with contextlib.suppress(StopIteration):
            stage(exchange).send(None)
            raise AssertionError("a stage waited")
        seconds[stage.__name__] = time.thread_time() - start
    return seconds


@pytest.mark.benchmark(timer=time.thread_time)
def test_guarding_a_request_costs_little(keys: list[str], benchmark: Any) -> None:
    draw = random.Random(0)
    done: list[Exchange] = []
    seconds: list[dict[str, float]] = []

    def prepare() -> tuple[tuple[Exchange], dict[str, Any]]:
        done.append(exchange_of(draw.choice(keys[:ACTIVE])))
        return (done[-1],), {}

    for key in keys[:ACTIVE]:
        pass_stages(exchange_of(key))
    gc.collect()
    gc.freeze()  # as vLLM does with what it holds once it serves
    benchmark.pedantic(lambda exchange: seconds.append(pass_stages(exchange)), setup=prepare, rounds=5000)
    start = time.thread_time()
    for exchange in done:
        for finish in exchange.on_finish[1:]:
            finish()
    settled = (time.thread_time() - start) / len(done)
    authorized = sorted(each["authorize"] for each in seconds)[len(seconds) // 2]
    both = sorted(each["authenticate"] + each["admit"] for each in seconds)
    median, p99 = both[len(both) // 2], both[len(both) * 99 // 100]
    print(
        f"\nauthentication and admission: median {median * 1e6:.1f} us, p99 {p99 * 1e6:.1f} us; "
        f"authorization, with the reading of the body: median {authorized * 1e6:.1f} us; "
        f"settlement: mean {settled * 1e6:.1f} us"
    )
    assert median < MEDIAN_SECONDS
    assert p99 < P99_SECONDS
