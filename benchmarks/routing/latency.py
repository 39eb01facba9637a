"""What understanding a prompt costs, one thread: classify(), and Aurelio's semantic-router beside it.

    python benchmarks/routing/latency.py
    pip install semantic-router            # in an environment of its own
    python benchmarks/routing/latency.py --model DIR

With ``--model``, a folder with all-MiniLM-L6-v2, semantic-router and ours choose among the same routes by the
same MiniLM in the same run, in turns; then ours with the static encoder. A route here is three utterances. A
decision as a whole, with rules and scores, is measured by benchmarks/test_routing.py.

Times are CPU time, which other processes add little to: of the thread for classify(), of the process for the
routers, since semantic-router encodes in another thread.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from itertools import count
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

from vllm_vlinders.routing import classify
from vllm_vlinders.routing.encoders import create_encoder
from vllm_vlinders.routing.similarity import likeness_of

SENTENCE = (
    "Please compare what both reforms did to trade, to the army and to the church, and say which lasted. "
)
CODE = (
    "def area(shape):\n    if shape.kind == 'circle':\n        return 3.14 * shape.size ** 2\n    return 0\n"
)
PROMPTS = {
    "short prompt (8 words)": "what should I cook for dinner tonight please",
    "short code (4 lines)": f"explain this\n{CODE}",
    "500 tokens of text": SENTENCE * 22,
    "500 tokens of code": f"explain this\n{CODE * 11}",
    "1 MB of text": SENTENCE * 10_000,
}
ROUTES = (10, 100, 1000)
UTTERANCES = 3
REPEATS = 2000


def microseconds(call, repeats=REPEATS, clock=time.thread_time_ns):
    """Return the median and the 99th percentile of repeated calls, without collections of garbage between."""
    call()
    gc.collect()
    gc.disable()
    taken = []
    for _ in range(repeats):
        start = clock()
        call()
        taken.append((clock() - start) / 1000)
    gc.enable()
    return statistics.median(taken), float(np.percentile(taken, 99))


def classification():
    print("| classify() | median, us | p99, us |\n|---|---|---|")
    for name, prompt in PROMPTS.items():
        numbers = count()  # no prompt comes twice: prompts are remembered
        median, p99 = microseconds(
            lambda prompt=prompt, numbers=numbers: classify(f"{prompt} {next(numbers)}"),
            200 if len(prompt) > 10**5 else REPEATS,
        )
        print(f"| {name} | {median:.0f} | {p99:.0f} |")


def made_up(routes, dimensions):
    """Return utterances and their vectors, made up: what they say changes no time."""
    said = [[f"utterance {route} {n}" for n in range(UTTERANCES)] for route in range(routes)]
    vectors = np.random.default_rng(0).normal(size=(routes * UTTERANCES, dimensions)).astype(np.float32)
    return said, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Ours:
    """The nearest utterance by dot product: what a route costs beyond the encoder."""

    def __init__(self, encoder, vectors):
        self.encoder = encoder
        self.vectors = vectors

    def __call__(self, prompt):
        """Return the number of the route."""
        return int(likeness_of(self.vectors, self.encoder.encode([prompt])[0]).argmax()) // UTTERANCES


def rival(encoder, said, vectors):
    """Return semantic-router's router with its local index, on our encoder."""
    from semantic_router import Route
    from semantic_router.encoders import DenseEncoder
    from semantic_router.index import LocalIndex
    from semantic_router.routers import IndexedRouter

    known = dict(zip([text for each in said for text in each], vectors.tolist(), strict=True))

    class Same(DenseEncoder):
        def __call__(self, docs):
            """Return the vectors as lists, which is what it wants."""
            return [known[doc] if doc in known else encoder.encode([doc])[0].tolist() for doc in docs]

    routes = [Route(name=str(number), utterances=each) for number, each in enumerate(said)]
    return IndexedRouter(encoder=Same(name="minilm"), routes=routes, index=LocalIndex())


def side_by_side(model, routes):
    import torch

    torch.set_num_threads(1)
    minilm, static = create_encoder("minilm", model=model), create_encoder("static")
    prompt = PROMPTS["short prompt (8 words)"]
    print("\n| routes | semantic-router, MiniLM | ours, MiniLM | ours, static |\n|---|---|---|---|")
    for number in routes:
        said, vectors = made_up(number, minilm.dimensions)
        small = made_up(number, static.dimensions)[1]
        contenders = [rival(minilm, said, vectors), Ours(minilm, vectors), Ours(static, small)]
        turns = [
            [microseconds(lambda c=c: c(prompt), 40, time.process_time_ns)[0] for c in contenders]
            for _ in range(5)
        ]
        print(
            f"| {number} | "
            + " | ".join(f"{statistics.median(t):.0f} us" for t in zip(*turns, strict=True))
            + " |"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--model", type=Path, default=None, help="folder of MiniLM: compare with semantic-router"
    )
    parser.add_argument("--routes", type=int, nargs="+", default=ROUTES)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    classification()
    if arguments.model:
        side_by_side(arguments.model, arguments.routes)


if __name__ == "__main__":
    main()
