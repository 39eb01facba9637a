"""What a route adds to a request that it has matched."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.routing.asked import CHAT, MESSAGES, RESPONSES, Asked
from vllm_vlinders.settings import RouteSettings

_LENGTHS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
_LENGTHS_OF = {CHAT: ("max_tokens", "max_completion_tokens"), RESPONSES: ("max_output_tokens",)}
_OTHER_LENGTHS = ("max_tokens",)
_TEMPLATE = "chat_template_kwargs"


def shape(payload: dict[str, Any], path: str, asked: Asked, route: RouteSettings) -> None:
    """Add to a request body what the route sets, where the request itself says nothing.

    Args:
        payload: the body; it is changed.
        path: the endpoint.
        asked: what has been read of the body.
        route: the route.
    """
    has_length = not _LENGTHS.isdisjoint(payload)
    payload |= {
        name: value
        for name, value in _parameters(route, path).items()
        if name not in payload and not (has_length and name in _LENGTHS)
    }
    template = payload.get(_TEMPLATE, {})
    if route.chat_template_kwargs and path in (CHAT, RESPONSES, MESSAGES) and isinstance(template, dict):
        payload[_TEMPLATE] = {**route.chat_template_kwargs, **template}
    if route.system is not None and not asked.system:
        _add_system(payload, path, route.system)


def _parameters(route: RouteSettings, path: str) -> dict[str, Any]:
    """Return what the route sets, the length of an answer by a name that the endpoint knows."""
    known = _LENGTHS_OF.get(path, _OTHER_LENGTHS)
    foreign = _LENGTHS.difference(known)
    kept = {name: value for name, value in route.parameters.items() if name not in foreign}
    lengths = [value for name, value in route.parameters.items() if name in foreign]
    if lengths and kept.keys().isdisjoint(known):
        kept[known[0]] = lengths[0]
    return kept


def _add_system(payload: dict[str, Any], path: str, system: str) -> None:
    messages = payload.get("messages")
    if path == CHAT and isinstance(messages, list):
        payload["messages"] = [{"role": "system", "content": system}, *messages]
    elif path == RESPONSES:
        payload["instructions"] = system
    elif path == MESSAGES:
        payload["system"] = system
