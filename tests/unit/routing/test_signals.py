"""What the surface of a prompt says: code and its state, language, counts."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_vlinders.routing import grammar
from vllm_vlinders.routing.exemplars import snippets
from vllm_vlinders.routing.grammar import GRAMMARS, structure_of
from vllm_vlinders.routing.signals import READ_CHARACTERS, read_signals

CODE = {
    "python": "def add(a, b):\n    total = a + b\n    return total\n",
    "javascript": "const add = (a, b) => {\n  console.log(a);\n  return a + b;\n};\n",
    "java": "public class Adder {\n    private int n;\n    public void add(int a) {\n        n += a;\n    }\n}\n",
    "c": '#include <stdio.h>\n\nint main(void) {\n    printf("%d", 1);\n    return 0;\n}\n',
    "cpp": "#include <vector>\n\nint sum(std::vector<int> v) {\n    int t = 0;\n    for (auto x : v) t += x;\n\n}\n",
    "csharp": 'using System;\n\nclass A {\n    static void Main() {\n        Console.WriteLine("x");\n    }\n}\n',
    "go": "package main\n\nfunc add(a int, b int) int {\n\tc := a + b\n\treturn c\n}\n",
    "rust": "fn add(a: i32, b: i32) -> i32 {\n    let mut c = a;\n    c += b;\n    c\n}\n",
    "ruby": "def add(a, b)\n  puts a\n  [a, b].each do |x|\n    puts x\n  end\nend\n",
    "php": "<?php\nfunction add($a, $b) {\n    echo $a;\n    return $a + $b;\n}\n?>\n",
    "bash": '#!/bin/bash\nfor f in *.txt; do\n  echo "$f"\ndone\n',
    "sql": "SELECT name, COUNT(*) FROM users\nWHERE age > 3\nGROUP BY name;\n",
}


@pytest.mark.parametrize("language", CODE)
def test_code_is_found_and_named(language):
    for prompt in (CODE[language], f"what is this\n\n{CODE[language]}", f"explain\n```\n{CODE[language]}```"):
        signals = read_signals(prompt)
        assert signals.code_language == language
        assert not signals.code_incomplete
        assert 0 < signals.code_characters <= len(CODE[language])


@pytest.mark.parametrize(
    "language", ["python", "javascript", "java", "c", "cpp", "csharp", "go", "rust", "php"]
)
def test_code_that_stops_midway_is_incomplete(language):
    cut = CODE[language].rstrip("\n}) ;?>")
    if language == "python":
        cut = "def add(a, b):\n    total = add(a,"
    assert read_signals(f"complete\n```{language}\n{cut}\n```").code_incomplete


@pytest.mark.parametrize(
    "code",
    [
        'def f(x):\n    """Return x doubled."""\n',
        "def f(x):\n    # TODO\n",
        "class Cart:\n    def total(self):\n",
        "function f(a) {\n  // your code here\n}\n",
        "if ready:\n    for item in items:\n",
    ],
)
def test_a_body_that_is_missing_is_incomplete(code):
    assert read_signals(code).code_incomplete


@pytest.mark.parametrize(
    "code",
    [
        "SELECT id, email FROM accounts WHERE created_at >",
        "select p.name, avg(r.stars)\nfrom products p\njoin reviews r on",
        "SELECT city, COUNT(*) FROM customers GROUP",
        "INSERT INTO users (name, email",
        "SELECT a.id,",
    ],
)
def test_sql_that_stops_midway_is_incomplete(code):
    assert read_signals(f"finish this query\n```sql\n{code}\n```").code_incomplete


def test_depth_counts_blocks():
    flat = read_signals("def f():\n    return 1\n")
    deep = read_signals(
        "def f():\n    for a in b:\n        if a:\n            while a:\n                a -= 1\n"
    )
    assert (flat.code_depth, deep.code_depth) == (1, 4)


@pytest.mark.parametrize(
    ("language", "prompt"),
    [
        ("sql", "このSQLは何をしていますか? SELECT * FROM t WHERE a = 1"),
        ("python", "このPythonコードは何をしますか print(sum(range(10)))"),
        ("python", "Bu kodu açıkla: x = [i for i in range(5)]"),
        ("python", "这段代码是什么意思？print(sum(range(3)))"),
        ("python", "यह कोड क्या करता है? print(sum([1, 2]))"),
        ("javascript", "Que fait ce code : const a = [1, 2].map(x => x * 2);"),
        ("python", "completa el código: def suma(a, b):\n    return"),
    ],
)
def test_code_on_the_line_of_the_prose_is_found(language, prompt):
    assert read_signals(prompt).code_language == language


@pytest.mark.parametrize(
    "text",
    [
        "Note: function room (upstairs) is free",
        "Title: class of 2020 (public debate)",
        "Solve for x: 5x - 7 = 18",
        "Hi,\n\nI want to book a table for four; is that possible?\nThanks\nAnna",
        "Shopping list:\n- milk\n- eggs\n- bread",
        "If x = 3 and y = 4, what is x + y?",
        "The class starts at nine, and I return from work at six.",
        "Dear Sir (or Madam),\nplease let me know\nwhen the function room is free.",
    ],
)
def test_prose_is_no_code(text):
    assert read_signals(text).code_language is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "What should I do with the leftovers of the soup?"),
        ("es", "¿Qué puedo hacer con los restos de la sopa?"),
        ("fr", "Que faire avec les restes de la soupe ?"),
        ("de", "Was kann ich mit den Resten der Suppe machen?"),
        ("pt", "O que posso fazer com as sobras da sopa?"),
        ("it", "Che cosa posso fare con gli avanzi della zuppa?"),
        ("ru", "Что можно сделать с остатками супа?"),
        ("uk", "Що можна зробити із залишками їжі?"),
        ("zh", "剩下的汤可以怎么处理？"),
        ("ja", "残ったスープはどうすればいいですか"),
        ("ko", "남은 국으로 무엇을 할 수 있나요?"),
        ("ar", "ماذا أفعل ببقايا الحساء؟"),
        ("hi", "बचे हुए सूप का क्या करूँ?"),
        ("und", "12345"),
    ],
)
def test_language_of_the_text(language, text):
    assert read_signals(text).language == language


def test_counts():
    signals = read_signals("Is 3 more than 2? Why?\n1. first\n2) second\n- third\nSolve x^2 = 4.")
    assert (signals.questions, signals.list_items, signals.lines) == (2, 3, 5)
    assert signals.numbers >= 4
    assert signals.formulas >= 1


def test_the_whole_length_is_known_of_what_is_not_read():
    signals = read_signals("word " * READ_CHARACTERS)
    assert signals.characters == 5 * READ_CHARACTERS
    assert signals.words == pytest.approx(READ_CHARACTERS, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GRAMMARS)), st.text(max_size=300) | st.sampled_from(snippets()))
def test_every_grammar_reads_any_text(language, text):
    depth, broken = structure_of(text, language)
    assert depth >= 0
    assert isinstance(broken, bool)


RUN_ON = [
    "signals._SENTENCE_END.findall('.' * 400_000 + 'x')",
    "code._CODE_LINE.match(')' * 400_000 + 'x')",
    "code._FENCE.findall('`' * 400_000 + 'x')",
]


@pytest.mark.parametrize("search", RUN_ON)
def test_a_sign_that_goes_on_for_ever_takes_no_longer_than_other_text(search):
    """In a process that can be ended: time that grows with the square of the length is many minutes of it."""
    command = f"from vllm_vlinders.routing import code, signals\n{search}"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=120)


def test_a_parser_that_takes_too_long_is_left_alone(monkeypatch):
    moments = itertools.count()
    monkeypatch.setattr(grammar.time, "thread_time", lambda: next(moments))
    code = "def area(shape):\n    if shape:\n        return (\n" * 40
    assert not structure_of(code, "python")[1], "what was not read to its end is not called cut off"


def test_threads_that_parse_at_once_find_what_one_alone_does():
    """In a process of its own: a parser that two threads use ends it."""
    command = """
import sys
from concurrent.futures import ThreadPoolExecutor
from vllm_vlinders.routing import grammar
grammar.PATIENCE_SECONDS = 60
sys.setswitchinterval(1e-5)
codes = ["def f(a):\\n    if a:\\n        return [a, {1: (2, 3)}]\\n" * 50, "class A:\\n    x = 1\\n" * 100]
alone = [grammar.structure_of(code, "python") for code in codes]
with ThreadPoolExecutor(4) as threads:
    found = threads.map(lambda number: grammar.structure_of(codes[number % 2], "python"), range(400))
assert list(found) == alone * 200
"""
    subprocess.run([sys.executable, "-c", command], check=True, timeout=250)
