"""The scenarios of sessions: conversations whose prefixes one-off requests push out of the KV cache."""

from __future__ import annotations

import random
from statistics import mean

from scenarios.engine import Engine, Measured

Figures = dict[str, float]
HIT_RATE, NOISE_RATE = "hit rate of sessions, %", "tokens of noise a step"
LATER_TTFT = "mean TTFT of turns 2 to 6, ms"
SESSIONS, TURNS = 8, 6
SAID, ANSWERED = 64, 64
NOISE_PROMPT, NOISE_ANSWER = 384, 32
_PAUSE_STEPS = 128
_VOCABULARY = 2000


def sessions(contender: str, noisy: int = 0, model: str = "tiny", *, uneven: bool = False) -> Figures:
    """Eight sessions of six turns over 256 KV blocks of 32, beside clients of one-off requests without pause.

    Each turn adds 64 random tokens to all that was said before, and is answered by 64; then comes a pause of 128 steps.
    So each turn falls into a step in which a noisy client's prompt is computed as well; `uneven` draws pauses from 64
    to 192 and the noise's answers from 16 to 48, the same ones in every run.
    """
    del contender
    pauses = random.Random(1) if uneven else None
    lengths = random.Random(2) if uneven else None
    options = {"block_size": 32, "num_gpu_blocks_override": 256, "enable_prefix_caching": True}
    talk = _Talk(Engine(slots=SESSIONS + 8, options=options, model=model), lengths)
    engine = talk.engine
    noises = {client: client * NOISE_ANSWER // noisy for client in range(noisy)}
    due = {number: number * _PAUSE_STEPS // SESSIONS for number in range(SESSIONS)}
    while talk.turns_left:
        for number, step in list(due.items()):
            if step <= engine.steps:
                del due[number]
                talk.say(number)
        for client in [client for client, step in noises.items() if step == engine.steps]:
            talk.make_noise(client)
        for name in engine.step() if engine.busy else engine.idle():
            kind, number, _ = name.split()
            if kind == "noise":
                talk.make_noise(int(number))
            elif talk.heard(name, int(number)):
                due[int(number)] = engine.steps + _draw(pauses, _PAUSE_STEPS)
    found = engine.chosen("session")
    hits = sum(m.cached_tokens for m in found) / sum(m.prompt_tokens for m in found)
    figures = {HIT_RATE: 100 * hits, NOISE_RATE: _all_tokens(engine.chosen("noise")) / engine.steps}
    if model == "tiny":  # it has next to no prefill
        return figures | {"steps": engine.steps}
    later = [m.seconds for name, m in engine.requests.items() if name[0] == "s" and not name.endswith(" 1")]
    return figures | {LATER_TTFT: 1000 * mean(later), "steps": engine.steps}


def _all_tokens(found: list[Measured]) -> int:
    return sum(m.prompt_tokens + m.tokens for m in found if m.ended >= 0)


class _Talk:
    """The conversations of a scenario, and the noise."""

    def __init__(self, engine: Engine, lengths: random.Random | None) -> None:
        self.engine = engine
        self.turns_left = SESSIONS * TURNS
        self._draw, self._lengths = random.Random(), lengths
        self._said: dict[int, list[int]] = {number: [] for number in range(SESSIONS)}
        self._turn = dict.fromkeys(range(SESSIONS), 0)
        self._noises = 0

    def say(self, number: int) -> None:
        """Begin the next turn of a session."""
        self._said[number] += self._random(SAID)
        self._turn[number] += 1
        name = f"session {number} {self._turn[number]}"
        self.engine.add_tokens(name, self._said[number].copy(), ANSWERED, session=f"s{number}")

    def heard(self, name: str, number: int) -> bool:
        """Take in the answer of a turn; tell whether there is another one."""
        self._said[number] += self.engine.requests[name].text
        self.turns_left -= 1
        return self._turn[number] < TURNS

    def make_noise(self, client: int) -> None:
        """Send a request that nobody continues."""
        self._noises += 1
        self.engine.add_tokens(
            f"noise {client} {self._noises}",
            self._random(NOISE_PROMPT),
            _draw(self._lengths, NOISE_ANSWER),
        )

    def _random(self, length: int) -> list[int]:
        return some_tokens(self._draw, length)


def _draw(draw: random.Random | None, mean: int) -> int:
    """Return a number from half of `mean` to one and a half; `mean` itself if nothing is to be drawn."""
    return mean if draw is None else draw.randint(mean // 2, mean + mean // 2)


def some_tokens(draw: random.Random, length: int) -> list[int]:
    """Return a random prompt."""
    return [draw.randrange(10, _VOCABULARY) for _ in range(length)]


def sessions_noise_4(contender: str) -> Figures:
    """The same with four noisy clients."""
    return sessions(contender, 4)


def sessions_noise_8(contender: str) -> Figures:
    """The same with eight."""
    return sessions(contender, 8)


def sessions_uneven(contender: str) -> Figures:
    """With eight, pauses and answers of uneven length."""
    return sessions(contender, 8, uneven=True)


def sessions_wide(contender: str) -> Figures:
    """The same with a model whose prefill takes time: hidden size 512, eight layers."""
    return sessions(contender, 8, model="tiny-wide", uneven=True)
