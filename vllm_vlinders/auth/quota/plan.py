"""From the settings to charges: what a request is counted against, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.auth.quota.charge import Charge
from vllm_vlinders.auth.roles import MAX_TOKENS_FIELDS
from vllm_vlinders.settings import PriceSettings, QuotaSettings, RoleSettings

MINUTE_MS, DAY_MS = 60_000, 86_400_000
MONTH_MS = 30 * DAY_MS
_MONEY_UNIT = 10**9
"""Money is counted in billionths: a millionth of a price, which is for a million tokens, and some more."""
MONEY_LIMITS = ("money_per_day", "money_per_month")
_TOKEN_LIMITS = ("tokens_per_minute", "tokens_per_day")
_REQUESTS, _TOKENS, _MONEY = range(3)
_WINDOWS = {
    "requests_per_minute": MINUTE_MS,
    "tokens_per_minute": MINUTE_MS,
    "tokens_per_day": DAY_MS,
    "money_per_day": DAY_MS,
    "money_per_month": MONTH_MS,
}
_GENERATE = ("/completions", "/responses", "/messages", "/invocations", "/generate", "/batch")
_LETTERS_PER_TOKEN = 4
_PROMPT_FIELDS = (
    "messages",
    "prompt",
    "input",
    "system",
    "instructions",
    "tools",
    "documents",
    "queries",
    "query",
)


class Amount(NamedTuple):
    """Tokens of prompts and of answers."""

    prompt: int = 0
    output: int = 0

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt + self.output

    def most(self, other: Amount) -> Amount:
        """Return the larger of both, in each part."""
        return Amount(max(self.prompt, other.prompt), max(self.output, other.output))

    def cost(self, price: PriceSettings) -> int:
        """Return what it costs, in billionths of the currency, rounded up."""
        exact = (self.prompt * price.input + self.output * price.output) * (_MONEY_UNIT / 1e6)
        return int(exact) + (exact > int(exact))


class Plan:
    """The limits of one caller.

    Args:
        settings: the section ``quotas``.
        principal: the caller.
    """

    def __init__(self, settings: QuotaSettings, principal: Principal) -> None:
        self._slots: list[tuple[str, int]] = []
        self._windows: list[tuple[str, str, int, int, int]] = []
        for subject, limit in (
            (f"principal:{principal.name}", settings.limits_of("principals", principal.name)),
            (f"tenant:{principal.tenant}", settings.limits_of("tenants", principal.tenant)),
        ):
            if limit.concurrent_requests is not None:
                self._slots.append((subject, limit.concurrent_requests))
            for name, window in _WINDOWS.items():
                most = getattr(limit, name)
                if most is not None:
                    unit = _MONEY_UNIT if name in MONEY_LIMITS else 1
                    self._windows.append((subject, name, _amount_of(name), int(most * unit), window))
        self._counts_money = any(kind == _MONEY for _, _, kind, _, _ in self._windows)
        self.counts_tokens = any(kind != _REQUESTS for _, _, kind, _, _ in self._windows)
        """Whether a limit is one of tokens, or of money, which they cost."""

    def __bool__(self) -> bool:
        return bool(self._slots or self._windows)

    def slots(self, requests: int = 1) -> list[Charge]:
        """Return the charges for `requests` at once."""
        return [Charge(subject, "concurrent_requests", requests, most, 0) for subject, most in self._slots]

    def windows(self, requests: int, amount: Amount, price: PriceSettings) -> list[Charge]:
        """Return the charges for `requests` that use `amount` at `price`."""
        amounts = requests, amount.tokens, amount.cost(price) if self._counts_money else 0
        return [
            Charge(subject, name, amounts[kind], most, window)
            for subject, name, kind, most, window in self._windows
        ]


def _amount_of(limit: str) -> int:
    """Return what is counted against a limit: `_REQUESTS`, `_TOKENS` or `_MONEY`."""
    return _TOKENS if limit in _TOKEN_LIMITS else _MONEY if limit in MONEY_LIMITS else _REQUESTS


def used_of(charge: Charge, amount: Amount, price: PriceSettings) -> int:
    """Return how much of a limit has really been used by one request that used `amount`."""
    if charge.limit in _TOKEN_LIMITS:
        return amount.tokens
    if charge.limit in MONEY_LIMITS:
        return amount.cost(price)
    return 1 if charge.limit == "requests_per_minute" else 0


def money(amount: int) -> float:
    """Return an amount of money in the currency of the settings."""
    return amount / _MONEY_UNIT


def output_limit(payload: Mapping[str, Any], settings: QuotaSettings, role: RoleSettings) -> int | None:
    """Return the most tokens that one answer may have; None: as many as fit."""
    asked = None
    for field in MAX_TOKENS_FIELDS:
        value = payload.get(field)
        # Which of several fields counts is vLLM's to say: none is made shorter here.
        if type(value) is int and value >= 0 and (asked is None or value > asked):  # True is no number
            asked = value
    if asked is None:
        asked = settings.default_max_tokens
    most = role.max_tokens
    return asked if most is None or (asked is not None and asked < most) else most


def estimate(path: str, payload: Mapping[str, Any], limit: int | None, context: int) -> Amount:
    """Return what a request may use, as far as its body tells: the engine's door knows it exactly.

    Args:
        path: the endpoint.
        payload: the request body.
        limit: the most tokens of one answer; None: as many as fit.
        context: the most tokens of prompt and answer that the model takes.
    """
    texts, tokens = _measure([payload[field] for field in _PROMPT_FIELDS if field in payload])
    prompt = texts // _LETTERS_PER_TOKEN + tokens
    if not path.endswith(_GENERATE):
        return Amount(prompt)
    given = payload.get("prompt")
    prompts = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    answers = payload.get("n")
    if not isinstance(answers, int) or isinstance(answers, bool) or answers < 1:
        answers = 1
    room = max(1, context - min(prompt // prompts, context))
    return Amount(prompt, prompts * min(answers, context) * (room if limit is None else min(limit, room)))


def _measure(part: Any) -> tuple[int, int]:
    """Return how many letters of text, and how many numbers, are in `part`; embedded files are neither."""
    letters = numbers = 0
    pending = [part]
    while pending:
        one = pending.pop()
        kind = type(one)  # JSON has no subclasses
        if kind is str:
            letters += 0 if one.startswith("data:") else len(one)
        elif kind is list:
            pending += one
        elif kind is dict:
            pending += [value for key, value in one.items() if key not in ("data", "bytes")]
        elif kind is int or kind is bool:
            numbers += 1
    return letters, numbers
