"""classify(): every text gets an answer, and what users plainly ask for is understood."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vllm_vlinders.routing import CATEGORIES, classify
from vllm_vlinders.routing.exemplars import FOLDER, code_requests, written_prompts

ROOT = Path(__file__).parents[3]
PLAIN = {
    "code_completion": [
        'def median(values):\n    """Return the median."""\n    ordered = sorted(values)\n    if len(ordered) %',
        "finish this\n```js\nfunction sum(a) {\n  let t = 0;\n  for (const x of a) {\n```",
        "completa esta función:\ndef area(r):\n    return 3.14 *",
    ],
    "code_generation": [
        "write a bash script that renames all pictures by date",
        "Escribe un script en python que lea un csv y calcule la media",
        "напиши скрипт на питоне который скачивает картинки",
        "how do i vertically align a span inside a div",
        "pandas keep only rows where price is above 10",
        "como ordenar um array em javascript",
        "First explain what a B-tree is, then write one in Go with insert, delete and tests",
    ],
    "code_explanation": [
        "what does this do?\n\nfor i in range(3):\n    print(i ** 2)\n",
        "erkläre mir diesen code\n```python\nx = {k: v for k, v in zip(a, b)}\n```",
        "このSQLは何をしていますか? SELECT * FROM t WHERE a = 1",
        "このPythonコードは何をしますか print(sum(range(10)))",
        "Bu kodu açıkla: x = [i for i in range(5)]",
        "whats the diff between a list and a tuple in python",
        "npm ERR! code ELIFECYCLE\nnpm ERR! errno 1\nnpm ERR! shop@1.0.0 build: `webpack`",
        "fatal: Unable to create '/srv/app/.git/index.lock': File exists.",
        "error[E0499]: cannot borrow `list` as mutable more than once at a time",
        "Pod is in CrashLoopBackOff, why",
        "ModuleNotFoundError: No module named 'yaml' but i installed it",
    ],
    "architecture_design": [
        "Design a scalable architecture for a food delivery platform with 2M users, queues, caches and databases",
        "Propose a database schema and microservices for a hotel booking system",
        "Design a parcel tracking service:\n1. 5M scans a day\n2. public API\n3. two regions\n4. audit",
        "wie würdest du ein system für arzttermine aufbauen",
        "спроектируй систему для проката самокатов",
    ],
    "simple_qa": [
        "what is the capital of peru",
        "combien d'habitants à Lyon",
        "hello!",
        "日本で一番高い山は何ですか",
        "Explain quantum entanglement like im 5",
        "اشرح لي نظرية النسبية",
        "continue",
        "1) capital of norway\n2) who wrote emma\n3) how many legs has a spider",
    ],
    "math": [
        "solve 3x + 4 = 19",
        "Rosa has 14 pencils, buys 3 packs of 6 and gives half of them away. How many are left?",
        "Prove that the square root of 3 is irrational.",
    ],
    "creative_writing": [
        "write a short story about a fox who opens a restaurant",
        "Schreib ein Gedicht über den Herbst",
        "写一首关于秋天的诗",
        "समुद्र पर एक कविता लिखो",
        "funny names for a goat",
        "birthday wishes for my uncle",
        "slogan para una heladería",
    ],
    "analysis": [
        "Compare the economic policies of Sweden and Denmark, evaluate their effects and discuss the trade-offs",
        "Summarize the following article and list its main arguments: Cities are changing because...",
        "Given the quarterly numbers Q1 12.3M Q2 11.1M Q3 10.4M what trends do you see and what would you recommend?",
        "positive or negative?\n- the lid broke\n- works like a charm\n- hm, not sure",
        "act as a therapist. I feel stuck between my job and my family, what patterns do you see",
    ],
}


@pytest.mark.parametrize(
    ("category", "prompt"), [(category, prompt) for category, prompts in PLAIN.items() for prompt in prompts]
)
def test_what_is_plainly_asked_for(category, prompt):
    assert classify(prompt).category == category


def test_hard_work_is_more_complex_than_easy_work():
    hard = (
        "Design a multi-region payment ledger with exactly-once semantics, compare two consistency models, "
        "estimate the cost of each and justify your choice step by step"
    )
    assert classify(hard).complexity > 0.7
    assert classify("what is the capital of peru").complexity < 0.3


@pytest.mark.parametrize(
    "prompt",
    [
        "who won the world cup in 2022 and who was the top scorer?",
        "When was the Eiffel tower built and how tall is it?",
        "Wann wurde der Eiffelturm gebaut und wie hoch ist er?",
    ],
)
def test_a_second_easy_question_does_not_make_hard_work(prompt):
    assert classify(prompt).complexity < 0.5


@pytest.mark.parametrize(
    "prompt",
    [
        "write a lock-free skip list in rust",
        "prove that the square root of 7 is irrational",
        "schreib einen Compiler für eine kleine Sprache",
        "func (q *Queue) Pop() (*Item, error) {\n\t// lock-free, linearizable, safe memory reclamation by hazard\n",
    ],
)
def test_a_short_prompt_may_ask_for_hard_work(prompt):
    assert classify(prompt).complexity > 0.5


SMALL_TALK = (
    "Good morning! I was on the phone with my sister, who lives in Lima and never stops to talk about the food "
    "there, and then we could not agree about something small. What is the capital of Chile?"
)


@pytest.mark.parametrize(
    "prompt",
    [
        SMALL_TALK,
        "def total(prices):\n    result = 0\n    for price in prices:\n        result +=",
    ],
)
def test_small_talk_and_code_do_not_make_hard_work(prompt):
    assert classify(prompt).complexity < 0.5


LISTS = {
    "write an inventory app in django": (
        "barcode scanning", "stock per warehouse", "purchase orders", "csv import", "role based access", "tests"
    ),
    "design a hospital messaging platform": (
        "audit trail", "offline clients", "encryption at rest", "three regions", "failover", "100k users"
    ),
    "write a fantasy story": (
        "a blind mapmaker", "a city under a lake", "an unreliable narrator", "two betrayals", "an open ending"
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", ["- {1}", "{0}. {1}", "{0}) {1}", "* {1}"])
@pytest.mark.parametrize("task", LISTS)
def test_a_list_asks_for_as_much_as_the_same_in_a_sentence(task, line):
    listed = "\n".join(line.format(number, item) for number, item in enumerate(LISTS[task], 1))
    sentence = classify(f"{task} with {', '.join(LISTS[task])}")
    as_list = classify(f"{task} with:\n{listed}")
    assert as_list.category == sentence.category
    assert as_list.complexity > 0.7
    assert sentence.complexity > 0.7


def test_a_list_of_easy_questions_is_no_hard_work():
    listed = (
        "1. when did elvis die\n2. currency of japan\n3. how many ounces in a pound\n4. is a tomato a fruit"
    )
    assert classify(listed).complexity < 0.3


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=400))
@example("")
@example(" \n\t")
@example("\x00\x01\xff")
@example("\ud800 half a character")
@example("```")
@example("(" * 5_000)
@example("0" * 20_000)
@example("a" * 1_000_000)
@example("def f():\n" * 50_000)
@example("\U0001f600" * 2_000)
@example("مرحبا " * 1_000)
def test_any_text_gets_an_answer(prompt):
    answer = classify(prompt)
    assert answer.category in CATEGORIES
    assert tuple(answer.scores) == CATEGORIES
    assert math.isclose(sum(answer.scores.values()), 1, abs_tol=1e-5)
    assert answer.scores[answer.category] == max(answer.scores.values())
    assert 0 <= answer.complexity <= 1


def test_the_same_prompt_gets_the_same_answer():
    assert classify("explain tides") == classify("explain tides")


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_has_hundreds_of_written_prompts(category):
    whole = {exemplar.prompt for exemplar in written_prompts() if exemplar.category == category}
    requests = code_requests(category) if (FOLDER / f"{category}.prompts.txt").exists() else []
    assert len(whole | set(requests)) >= 200


def test_exemplars_are_of_the_categories_there_are():
    assert {exemplar.category for exemplar in written_prompts()} == set(CATEGORIES)


def test_nothing_has_learnt_from_the_prompts_of_the_benchmark():
    """None has most of its words in common with an exemplar."""
    learnt = [words_of(exemplar.prompt) for exemplar in written_prompts()]
    lines = (ROOT / "benchmarks" / "routing" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    for prompt in (json.loads(line)["prompt"] for line in lines):
        words = words_of(prompt)
        assert not [each for each in learnt if len(words & each) >= 0.7 * len(words | each) > 0], prompt


def words_of(prompt):
    return frozenset(re.findall(r"\w+", prompt.lower()))


def test_no_exemplar_stands_twice():
    prompts = [exemplar.prompt.lower() for exemplar in written_prompts()]
    assert sorted({prompt for prompt in prompts if prompts.count(prompt) > 1}) == []
