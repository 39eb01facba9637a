"""One joined trace for each request: the caller's, ours and vLLM's."""

from __future__ import annotations

import secrets

import pytest

from collector import Collector, attributes
from server import NAME, Server
from traffic import PRIORITY, TENANT, Call

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_trace_with_the_caller_and_with_vllm(
    scheduled: Server, collector: Collector, stream: bool
) -> None:
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace}-{caller}-01", TENANT: "acme"}
    with scheduled.client() as client:
        answer = client.post(CHAT, json=Call("trace", path=CHAT, stream=stream).json(), headers=headers)
    request = f"chat {NAME}"
    spans = collector.trace(trace, {request, "llm_request", "authenticate"})

    ours = spans[request]
    assert ours.parent_span_id.hex() == caller
    assert spans["llm_request"].parent_span_id == ours.span_id
    assert spans["authenticate"].parent_span_id == ours.span_id
    found = attributes(ours)
    told = attributes(spans["llm_request"])
    assert found["gen_ai.usage.output_tokens"] == 6 == told["gen_ai.usage.completion_tokens"]
    assert found["gen_ai.usage.input_tokens"] == told["gen_ai.usage.prompt_tokens"]
    assert found["gen_ai.request.model"] == found["gen_ai.response.model"] == NAME
    assert found["vlinders.tenant"] == "acme"
    assert found["vlinders.request_id"] == answer.headers["X-Vlinders-Request-Id"]
    assert found["http.response.status_code"] == 200


def test_a_refused_request_says_which_stage_refused_it(scheduled: Server, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01", PRIORITY: "many"}
    with scheduled.client() as client:
        assert client.post(CHAT, json=Call("x", path=CHAT).json(), headers=headers).status_code == 400
    spans = collector.trace(trace, {f"POST {CHAT}", "tag"})

    assert spans["tag"].status.code == 2
    assert "llm_request" not in spans
    assert attributes(spans[f"POST {CHAT}"])["http.response.status_code"] == 400
