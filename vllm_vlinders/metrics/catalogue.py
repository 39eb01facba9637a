"""All metrics of vllm-vlinders: what each is called, means, and is labelled with."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_vlinders.metrics.families import SECONDS, Family

GAP_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the buckets of times between tokens."""
QUEUE_SECONDS = (*SECONDS, 1200, 3600, 7200)
"""Upper bounds of the buckets of times in the queue."""
DECISION_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
"""Upper bounds of the buckets of times that a decision of the router takes."""

REQUESTS = Family(
    "vlinders_requests_total",
    "counter",
    "Requests that ended, by HTTP status; 499: the client left before the end of its answer.",
    ("tenant", "model", "band", "route", "status"),
    by_principal=True,
)
TOKENS = Family(
    "vlinders_tokens_total",
    "counter",
    "Tokens by kind: prompt, cached (those of the prompt that the prefix cache held), completion.",
    ("tenant", "model", "kind"),
    by_principal=True,
)
COST = Family(
    "vlinders_cost_total",
    "counter",
    "What the tokens cost, by quotas.prices, in their currency.",
    ("tenant", "model"),
    by_principal=True,
)
ACTIVE = Family("vlinders_active_requests", "gauge", "Requests that have come and not ended.")
RESPONSE = Family(
    "vlinders_response_seconds",
    "histogram",
    "From a request's arrival to the end of its answer.",
    ("tenant", "band"),
)
FIRST_TOKEN = Family(
    "vlinders_time_to_first_token_seconds",
    "histogram",
    "From a request's arrival to its first token.",
    ("tenant", "band"),
)
INTER_TOKEN = Family(
    "vlinders_inter_token_seconds",
    "histogram",
    "Between two outputs of an answer, on the engine core's clock.",
    ("tenant", "band"),
    buckets=GAP_SECONDS,
)
QUEUE = Family(
    "vlinders_queue_seconds",
    "histogram",
    "From the engine core's queue to the first step, on its clock.",
    ("tenant", "band"),
    buckets=QUEUE_SECONDS,
)
PREEMPTIONS = Family(
    "vlinders_preemptions_total",
    "counter",
    "Preempted requests: slots or blocks, to make room for a more urgent one or a fair share; vllm, by vLLM "
    "itself, for want of KV blocks.",
    ("reason",),
)
AGED = Family(
    "vlinders_aged_total", "counter", "Requests that waited scheduler.aging_seconds or more before they ran."
)
SHED = Family(
    "vlinders_shed_total", "counter", "Requests turned away by their deadline or a full queue (503, 429)."
)
AGING = Family(
    "vlinders_aging_seconds",
    "gauge",
    "scheduler.aging_seconds: no request waits longer than five times this for such as came after it.",
    across="livemostrecent",
)
AUTH = Family(
    "vlinders_auth_requests_total",
    "counter",
    "Requests that needed a credential, by what became of them: allowed, or the reason of a refusal.",
    ("outcome",),
)
STORE_UP = Family(
    "vlinders_auth_store_up",
    "gauge",
    "1 while every API server process can read the key store, 0 while one relies on what it last read.",
    across="livemin",
)
QUOTA_TOKENS = Family(
    "vlinders_quota_tokens_total", "counter", "Tokens charged to quotas, by tenant.", ("tenant",)
)
QUOTA_REFUSALS = Family(
    "vlinders_quota_refusals_total",
    "counter",
    "Requests that found a quota used up, by tenant and limit.",
    ("tenant", "limit"),
)
USAGE_LOST = Family(
    "vlinders_usage_lost_total",
    "counter",
    "Requests that are missing in the usage ledger: of API servers that were killed before they stored them.",
)
USAGE_UP = Family(
    "vlinders_usage_up",
    "gauge",
    "1 while every API server process can write the usage ledger, 0 while one keeps its usage in memory.",
    across="livemin",
)
GPU_UTILIZATION = Family(
    "vlinders_gpu_utilization",
    "gauge",
    "Share of the time that a kernel ran, 0 to 1 (NVIDIA).",
    ("gpu_id",),
    across="livemostrecent",
)
GPU_MEMORY_USED = Family(
    "vlinders_gpu_memory_used",
    "gauge",
    "Bytes of GPU memory in use (NVIDIA).",
    ("gpu_id",),
    across="livemostrecent",
)
GPU_MEMORY_TOTAL = Family(
    "vlinders_gpu_memory_total",
    "gauge",
    "Bytes of GPU memory (NVIDIA).",
    ("gpu_id",),
    across="livemostrecent",
)
SESSION_PROMPT = Family(
    "vlinders_session_prompt_tokens_total",
    "counter",
    "Prompt tokens of requests that started: of those with a session, and of all others.",
    ("of",),
)
SESSION_HITS = Family(
    "vlinders_session_hit_tokens_total",
    "counter",
    "Those of them that the prefix cache held.",
    ("of",),
)
SESSION_KEPT = Family(
    "vlinders_session_kept_blocks_total",
    "counter",
    "KV blocks that were kept for the next turn of a session.",
)
SESSION_DROPPED = Family(
    "vlinders_session_dropped_blocks_total",
    "counter",
    "KV blocks that are kept no longer: room, budget, tenant_budget, branches, expired, reset, lost.",
    ("reason",),
)
SESSION_RANKS = Family(
    "vlinders_session_ranks_total",
    "counter",
    "Requests of sessions that went home or spilled to another rank; moved: to another one than the last.",
    ("what",),
)
ROUTE_DECISIONS = Family(
    "vlinders_route_decisions_total",
    "counter",
    "Decisions of the router; acted: yes or no, whether that model was asked to answer.",
    ("policy", "route", "model", "reason", "acted"),
)
ROUTE_SECONDS = Family(
    "vlinders_route_seconds", "histogram", "Time that a decision took.", buckets=DECISION_SECONDS
)
ROUTE_FAILURES = Family(
    "vlinders_route_failures_total",
    "counter",
    "Decisions that failed with an error, so that the default model answered.",
)
ROUTE_SECOND = Family(
    "vlinders_route_second_total",
    "counter",
    "What the first and the second policy would choose for the same request.",
    ("first", "second"),
)
ROUTE_COST = Family(
    "vlinders_route_cost_total",
    "counter",
    "Cost of routed requests at the prices of routing.models.",
    ("model",),
)
ROUTE_COST_OF_STRONGEST = Family(
    "vlinders_route_cost_of_strongest_total",
    "counter",
    "What the same requests had cost with the strongest model.",
    ("model",),
)
UPSTREAM_REQUESTS = Family(
    "vlinders_route_upstream_requests_total",
    "counter",
    "Requests sent to replicas of upstreams, by how that ended: answered, failed (the next was asked), error, "
    "broken_off, client_left.",
    ("model", "replica", "outcome"),
)
UPSTREAM_UP = Family(
    "vlinders_route_upstream_up",
    "gauge",
    "1 while a replica of an upstream is healthy, for every API server process, else 0.",
    ("model", "replica"),
    across="livemin",
)
PATCH_INFO = Family(
    "vlinders_patch_info",
    "gauge",
    "1 for the state in which a patch is, by kind of process; 0: it was.",
    ("patch", "state", "process", "vllm"),
    across="livemostrecent",
)

FAMILIES = (
    REQUESTS,
    TOKENS,
    COST,
    ACTIVE,
    RESPONSE,
    FIRST_TOKEN,
    INTER_TOKEN,
    QUEUE,
    PREEMPTIONS,
    AGED,
    SHED,
    AGING,
    AUTH,
    STORE_UP,
    QUOTA_TOKENS,
    QUOTA_REFUSALS,
    USAGE_LOST,
    USAGE_UP,
    GPU_UTILIZATION,
    GPU_MEMORY_USED,
    GPU_MEMORY_TOTAL,
    SESSION_PROMPT,
    SESSION_HITS,
    SESSION_KEPT,
    SESSION_DROPPED,
    SESSION_RANKS,
    ROUTE_DECISIONS,
    ROUTE_SECONDS,
    ROUTE_FAILURES,
    ROUTE_SECOND,
    ROUTE_COST,
    ROUTE_COST_OF_STRONGEST,
    UPSTREAM_REQUESTS,
    UPSTREAM_UP,
    PATCH_INFO,
)


def rows() -> Iterator[str]:
    """Yield the table of metrics, in Markdown, as docs/operations.md has it."""
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for family in FAMILIES:
        labels = [f"`{label}`" for label in family.labels] + [
            "those of `metrics.labels`"
        ] * family.by_principal
        yield f"| `{family.name}` | {family.kind} | {', '.join(labels)} | {family.meaning} |"
