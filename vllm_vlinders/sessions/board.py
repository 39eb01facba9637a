"""What people are shown of the sessions of one engine core."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vllm_vlinders.sessions.retention import Retention

_MOST_SHOWN = 256
_NO_TENANT = ""
_MOST_TENANTS, _MORE_TENANTS = 256, "other"


class Board:
    """Counts the prompt tokens whose KV blocks were found, and describes what is kept.

    Clients may name ever new tenants: the first so many are counted by name, the rest together.

    Attributes:
        changed: whether anything has been counted since it was last described.
        shown_at: when that was, in seconds.
    """

    def __init__(self) -> None:
        self.changed = False
        self.shown_at = float("-inf")
        self._prompt: Counter[str] = Counter({_NO_TENANT: 0})
        self._hits: Counter[str] = Counter()

    def count(self, tenant: str | None, prompt_tokens: int, hit_tokens: int) -> None:
        """Count a request that starts.

        Args:
            tenant: who pays for its session; None: it belongs to none.
            prompt_tokens: the length of its prompt.
            hit_tokens: how many of them need not be computed.
        """
        key = _NO_TENANT if tenant is None else tenant
        if key not in self._prompt and len(self._prompt) > _MOST_TENANTS:  # _NO_TENANT is one of them
            key = _MORE_TENANTS
        self._prompt[key] += prompt_tokens
        self._hits[key] += hit_tokens
        self.changed = True

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return prompt tokens and hits of ``sessions`` and of ``others``."""
        others = self._prompt[_NO_TENANT], self._hits[_NO_TENANT]
        sessions = self._prompt.total() - others[0], self._hits.total() - others[1]
        return {"sessions": sessions, "others": others}

    def describe(self, retention: Retention | None, now: float) -> dict[str, Any]:
        """Return it all, JSON-serialisable; of the sessions those used last."""
        self.changed, self.shown_at = False, now
        shown: dict[str, Any] = {
            "others": self._tokens(_NO_TENANT),
            "tenants": {name: self._tenant(name, retention) for name in self._prompt if name != _NO_TENANT},
        }
        if retention is None:
            return shown | {"retention": False}
        sessions = list(retention.sessions)
        latest = {
            session.name: {
                "tenant": session.tenant,
                "turns": session.turns,
                "blocks": sum(len(chain.blocks) for chain in session.chains),
                "idle_seconds": round(now - session.used, 1),
            }
            for session in sessions[-_MOST_SHOWN:]
        }
        retention.changed = False
        return shown | {
            "retention": True,
            "sessions": len(sessions),
            "kept_blocks": retention.held,
            "kept_free_blocks": len(retention.idle),
            "most_blocks": retention.most,
            "counts": dict(retention.counts),
            "latest": latest,
        }

    def _tenant(self, name: str, retention: Retention | None) -> dict[str, int]:
        if retention is None or name == _MORE_TENANTS:
            return self._tokens(name)
        return self._tokens(name) | {"kept_blocks": retention.held_for(name)}

    def _tokens(self, key: str) -> dict[str, int]:
        return {"prompt_tokens": self._prompt[key], "hit_tokens": self._hits[key]}
