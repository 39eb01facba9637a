"""The stage that admits: whether the quotas of the caller leave room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from vllm_vlinders.auth.quota.book import Account, Book
from vllm_vlinders.auth.quota.charge import Level, Refusal
from vllm_vlinders.auth.quota.plan import MONEY_LIMITS, Amount, estimate, money, output_limit
from vllm_vlinders.errors import RequestError
from vllm_vlinders.metrics.access import count_quota_refusal, count_quota_tokens
from vllm_vlinders.metrics.labels import OTHER
from vllm_vlinders.serving.access import active_access
from vllm_vlinders.serving.exchange import Exchange, Header
from vllm_vlinders.serving.measure import is_work, model_asked_for, model_of, recorder
from vllm_vlinders.serving.meter import Meter
from vllm_vlinders.serving.uncounted import refuse_uncounted, works_on

_KINDS = {"requests_per_minute": "requests", "tokens_per_minute": "tokens", "tokens_per_day": "tokens"}
_NAMES = {
    kind: tuple(f"x-ratelimit-{what}-{kind}".encode() for what in ("limit", "remaining", "reset"))
    for kind in ("requests", "tokens")
}


async def admit(exchange: Exchange) -> None:
    """Count the request against all limits, with the most it may use; settle when it has ended."""
    access, grant = active_access(), exchange.grant
    if access is None or grant is None:
        return
    book, principal = access.book, grant.principal
    payload = exchange.payload or {}
    meter = exchange.meter
    meter.limit = output_limit(payload, book.settings, grant.role)
    label = _label(principal.tenant)
    exchange.on_finish.append(lambda: count_quota_tokens(label, meter.prompt + meter.output))
    plan = book.plan(principal)
    working = is_work(exchange)
    if working:
        refuse_uncounted(exchange, grant, plan)
    if not plan:
        return
    if not working:
        exchange.response_headers.extend(_headers(await book.levels(plan)))
        return
    amount = estimate(exchange.path, payload, meter.limit, access.context)
    asked = model_asked_for(exchange)
    account = await book.open(plan, amount, book.settings.price_of(asked))
    if isinstance(account, Refusal):
        count_quota_refusal(label, account.charge.limit)
        if not account.outage:
            exchange.response_headers.extend(_headers(await book.levels(plan)))
        raise _too_much(account)
    exchange.response_headers.extend(_headers(account.levels))
    exchange.on_finish.append(lambda: _settle(book, account, exchange, meter))

    def reserve(model: str | None, prompt: int, output: int) -> None:
        refusal = book.top_up(account, Amount(prompt, output), book.settings.price_of(model or asked))
        if refusal is not None:
            count_quota_refusal(label, refusal.charge.limit)
            raise _too_much(refusal)

    meter.reserve = reserve


def _label(tenant: str) -> str:
    """Return the label of a tenant; all are `OTHER` where requests are not counted."""
    counts = recorder()
    return OTHER if counts is None else counts.tenant(tenant)


def _settle(book: Book, account: Account, exchange: Exchange, meter: Meter) -> None:
    if (model := model_of(exchange)) is not None:  # perhaps an upstream's, in the place of another one
        account.price = book.settings.price_of(model)
    used: Amount | None = Amount(meter.prompt, meter.output)
    if exchange.refusal is not None and not meter.prompt:
        used = None
    elif works_on(exchange) and (exchange.status or 0) < HTTPStatus.BAD_REQUEST:
        # The answer has ended and the work has not: it is charged with what it may use.
        used = account.reserved
    book.close(account, used)


def _headers(levels: Iterable[Level]) -> list[Header]:
    """Return what tells the caller how much is left: of the limit of each kind that has the least."""
    least: dict[str, tuple[int, Level]] = {}
    for level in levels:
        kind = _KINDS.get(level.charge.limit)
        if kind is not None:
            remaining, known = level.remaining, least.get(kind)
            if known is None or remaining < known[0]:
                least[kind] = remaining, level
    headers: list[Header] = []
    for kind, (remaining, level) in least.items():
        headers += _rate_limit(kind, level.charge.most, remaining, -(-level.reset_ms // 1000))
    return headers


def _rate_limit(kind: str, limit: int, remaining: int, reset: int) -> list[Header]:
    limits, remains, resets = _NAMES[kind]
    return [(limits, b"%d" % limit), (remains, b"%d" % remaining), (resets, b"%ds" % reset)]


def _too_much(refusal: Refusal) -> RequestError:
    """Return the error that says which limit leaves no room, and when there will be some."""
    charge = refusal.charge
    if refusal.outage:
        message = "the quotas of this server cannot be checked at the moment; try again soon"
        return RequestError(
            message, status=503, kind="server_error", code="quotas_down", headers={"Retry-After": "1"}
        )
    amounts = (charge.most, refusal.used, charge.amount)
    if charge.limit in MONEY_LIMITS:
        most, used, asked = (f"{money(amount):.6g}" for amount in amounts)
    else:
        most, used, asked = (str(amount) for amount in amounts)
    message = f"{charge.limit} of {charge.subject}: the limit is {most}, {used} are used"
    headers: dict[str, str] = {}
    if refusal.wait_ms is None:
        code, message = (
            "request_too_large",
            f"{message}, and this request may need {asked}: more than all of it",
        )
        message += "; give a smaller max_tokens, a smaller n or a shorter prompt"
    else:
        seconds = max(1, math.ceil(refusal.wait_ms / 1000))
        code, message = (
            "rate_limit_exceeded",
            f"{message}, this request may need {asked}; again in {seconds} s",
        )
        headers["Retry-After"] = str(seconds)
        kind = _KINDS.get(charge.limit)
        if kind is not None:
            left = max(0, charge.most - refusal.used)
            headers |= {
                name.decode(): value.decode() for name, value in _rate_limit(kind, charge.most, left, seconds)
            }
    return RequestError(
        message, status=429, kind="rate_limit_error", param=charge.limit, code=code, headers=headers
    )


def describe(levels: Iterable[Level]) -> dict[str, Any]:
    """Return usage as `/vlinders/usage` shows it: by subject and limit."""
    subjects: dict[str, dict[str, Mapping[str, float]]] = {}
    for level in levels:
        is_money = level.charge.limit in MONEY_LIMITS
        numbers = (level.charge.most, level.used, level.remaining)
        limit, used, remaining = (money(number) if is_money else number for number in numbers)
        subjects.setdefault(level.charge.subject, {})[level.charge.limit] = {
            "limit": limit,
            "used": used,
            "remaining": remaining,
            "reset_seconds": math.ceil(level.reset_ms / 1000),
        }
    return subjects
