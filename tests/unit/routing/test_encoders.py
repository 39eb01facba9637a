"""Encoders: rows of unit length, in order, for any text; errors that name what is wrong."""

from __future__ import annotations

import json
import string

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_vlinders.errors import EncoderError
from vllm_vlinders.routing.encoders import CachedEncoder, create_encoder
from vllm_vlinders.routing.encoders.openai import OpenAiEncoder
from vllm_vlinders.routing.encoders.static import FILES
from vllm_vlinders.routing.encoders.wordpiece import WordPiece
from vllm_vlinders.routing.similarity import likeness_of

STATIC = create_encoder("static")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=4))
def test_static_rows_have_unit_length_or_are_zeros(texts):
    rows = STATIC.encode(texts)
    assert rows.shape == (len(texts), 256)
    assert rows.dtype == np.float32
    lengths = np.linalg.norm(rows, axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-4) | (lengths == 0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_a_batch_is_the_texts_one_by_one(texts):
    singly = np.concatenate([STATIC.encode([text]) for text in texts])
    assert np.allclose(STATIC.encode(texts), singly)


def test_static_knows_what_is_alike():
    rows = STATIC.encode(
        ["a poem about the sea", "verses on the ocean", "fix the bug in this python function"]
    )
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2


def test_what_the_wheel_carries_is_small():
    assert sum(path.stat().st_size for path in FILES.iterdir()) < 16 * 2**20


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " \n", max_size=120))
def test_wordpiece_is_that_of_bert(text):
    tokenizers = pytest.importorskip("tokenizers")
    general = tokenizers.BertWordPieceTokenizer(str(FILES / "vocab.txt"), lowercase=True)
    unknown = general.token_to_id("[UNK]")
    expected = [n for n in general.encode(text, add_special_tokens=False).ids if n != unknown]
    assert WordPiece(FILES / "vocab.txt").encode(text, 512) == expected


def test_wordpiece_stops_at_its_limit():
    assert len(WordPiece(FILES / "vocab.txt").encode("word " * 50, 7)) == 7


class Counting:
    name = "counting"

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_the_cache_asks_once_and_keeps_the_order():
    counting = Counting()
    cached = CachedEncoder(counting, size=2)
    assert cached.encode(["a", "bb"])[:, 0].tolist() == [1, 2]
    assert cached.encode(["bb", "ccc", "a"])[:, 0].tolist() == [2, 3, 1]
    assert counting.asked == ["a", "bb", "ccc"]
    cached.encode(["bb"])
    assert counting.asked[-1] == "bb", "the one used longest ago was forgotten"


def test_the_cache_forgets_long_texts_and_takes_no_text():
    counting = Counting()
    cached = CachedEncoder(counting, longest=3)
    cached.encode(["long text"])
    cached.encode(["long text"])
    assert counting.asked == ["long text"] * 2
    assert cached.encode([]).shape == (0, 2)


def served(answer, status=200):
    def handler(request):
        texts = json.loads(request.content)["input"]
        return httpx.Response(status, json=answer(texts) if callable(answer) else answer)

    return OpenAiEncoder("http://host/v1", "m", api_key="k", transport=httpx.MockTransport(handler))


def test_openai_rows_follow_the_index_and_blanks_are_zeros():
    def answer(texts):
        rows = [{"index": i, "embedding": [3.0 * len(t), 4.0 * len(t)]} for i, t in enumerate(texts)]
        return {"data": rows[::-1]}

    rows = served(answer).encode(["x", " ", "yy"])
    assert np.allclose(rows, [[0.6, 0.8], [0, 0], [0.6, 0.8]])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"error": "no"}, 500),
        ({"data": []}, 200),
        ({"data": [{"index": 0, "embedding": "x"}]}, 200),
        ([1], 200),
        ({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]}, 200),
    ],
)
def test_openai_says_what_is_wrong(answer, status):
    with pytest.raises(EncoderError, match="http://host/v1/embeddings gave no embeddings"):
        served(answer, status).encode(["a", "b"])


def test_an_unknown_encoder_is_refused_by_name():
    with pytest.raises(ValueError, match="no encoder is named 'bert'; there are static, minilm and openai"):
        create_encoder("bert")


def test_how_like_a_route_is_does_not_depend_on_how_many_there_are() -> None:
    draw = np.random.default_rng(0)
    rows, row = draw.normal(size=(3000, 256)).astype(np.float32), draw.normal(size=256).astype(np.float32)
    together = likeness_of(rows, row)
    assert np.allclose(together, rows @ row, atol=1e-3)
    assert all(together[at] == likeness_of(rows[at : at + 1], row)[0] for at in range(0, 3000, 7))
