"""What the classifier learns from: the exemplars of the package, put together and varied."""

from __future__ import annotations

import random
import re

from vllm_vlinders.routing.exemplars import Exemplar, chatter, code_requests, snippets, written_prompts
from vllm_vlinders.routing.language import language_of

SNIPPETS_PER_REQUEST = 4
CUTS_PER_SNIPPET = 4
OPENINGS = (
    "hi, ", "hello ", "please ", "can you ", "hey ", "could you please ", "I need help. ", "Hi there! ", "ok now ",
)  # fmt: skip
CHATTED = {False: 0.35, True: 0.25}
"""The shares of easy and hard short prompts that come with small talk around them as well."""
REQUESTS_PER_HARD_COMPLETION = 3
LISTS_PER_KIND = 90
"""How many lists are put together from short prompts of one kind, such as easy sums."""
LISTED_KINDS = (
    ("simple_qa", False), ("math", False), ("math", True), ("code_explanation", False), ("code_generation", False),
)  # fmt: skip
HEADINGS = ("", "", "", "questions:\n", "please:\n", "homework\n\n")
BREAKS = ("\n", "\n", "\n\n")
BRIEF = 70
LEAST_ITEMS = 3
ENUMERATION = re.compile(
    r"(?P<head>.{8,}?(?::|\uff1a|\b(?:with|for|about|including|covering|such as|con|sobre|avec|mit|com|\u0441)\b))"
    r"\s*(?P<items>[^,:]+(?:,[^,:]+){2,})$"
)
SEPARATOR = re.compile(r",\s*(?:and\s+|or\s+)?|\s+(?:and|und|et|y|e|\u0438)\s+(?=[^,]*$)|[\u3001\uff0c]")
MARKS = ("- ", "- ", "* ", "\u2022 ", "{}. ", "{}. ", "{}) ")
CLOSINGS = (".", "?", "??", " please", " thanks", "...")


def lesson(rng: random.Random, variants: int = 2) -> list[Exemplar]:
    """Return all that is learnt from: the written prompts, and variants of them, and prompts about code."""
    written = written_prompts()
    varied = [Exemplar(hasty(e.prompt, rng), e.category, e.complex) for e in written for _ in range(variants)]
    return written + varied + as_lists(written, rng) + with_chatter(written, rng) + about_code(written, rng)


def with_chatter(written: list[Exemplar], rng: random.Random) -> list[Exemplar]:
    """Return short prompts in the middle of small talk in their language, which makes them no harder."""
    talk = chatter()
    made = []
    for exemplar in written:
        known = talk.get(language_of(exemplar.prompt))
        if known and brief(exemplar.prompt) and chance(rng, CHATTED[exemplar.complex]):
            before, after = rng.sample(known, rng.randint(1, 3)), rng.sample(known, rng.randint(0, 1))
            asked = exemplar.prompt[:1].upper() + exemplar.prompt[1:]
            made.append(Exemplar(" ".join([*before, asked, *after]), exemplar.category, exemplar.complex))
    return made


def as_lists(written: list[Exemplar], rng: random.Random) -> list[Exemplar]:
    """Return what enumerates something as a list of lines, and lists of short prompts of one kind.

    A list asks for as much as the sentence that it stands for.
    """
    made = []
    for exemplar in written:
        if parts := enumerated(exemplar.prompt):
            head, items = parts
            for _ in range(2):
                prompt = f"{head}{rng.choice(('', ':', ':'))}{rng.choice(BREAKS)}{listed(items, rng)}"
                made.append(Exemplar(prompt, exemplar.category, exemplar.complex))
    for category, hard in LISTED_KINDS:
        short = [e.prompt for e in written if (e.category, e.complex) == (category, hard) and brief(e.prompt)]
        for _ in range(LISTS_PER_KIND):
            items = rng.sample(short, rng.randint(2, 4))
            made.append(Exemplar(rng.choice(HEADINGS) + listed(items, rng), category, hard))
    return made


def enumerated(prompt: str) -> tuple[str, list[str]] | None:
    """Return what comes before an enumeration, and its items; None of a prompt without one.

    "A bot with a menu, prices and a cart" has three items; so have three sentences behind a first one.
    """
    if "\n" in prompt or any(sign in prompt for sign in "{};="):
        return None
    if match := ENUMERATION.match(prompt):
        items = [item.strip(" .?!") for item in SEPARATOR.split(match["items"])]
        items = [item for item in items if item]
        if len(items) >= LEAST_ITEMS:
            return match["head"].rstrip(" :,"), items
    sentences = re.split(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])", prompt)
    sentences = [sentence for sentence in sentences if sentence.strip()]
    return (sentences[0].rstrip(" .:"), sentences[1:]) if len(sentences) > LEAST_ITEMS else None


def listed(items: list[str], rng: random.Random) -> str:
    """Return the items, one a line, behind bullets or numbers."""
    mark = rng.choice(MARKS)
    between = "\n\n" if chance(rng, 0.1) else "\n"
    return between.join(mark.format(number) + item for number, item in enumerate(items, 1))


def brief(prompt: str) -> bool:
    """Say whether a prompt is short enough to be one item among others."""
    return "\n" not in prompt and len(prompt) < BRIEF


def about_code(written: list[Exemplar], rng: random.Random) -> list[Exemplar]:
    """Return whole code to explain or to change, and cut code to complete.

    Half of the changes count as complex; reading and completing a function do not, unless it was written as such.
    """
    codes = snippets()
    made = [
        Exemplar(placed(request, code, rng), "code_explanation", complex=False)
        for request in code_requests("code_explanation")
        for code in rng.sample(codes, SNIPPETS_PER_REQUEST)
    ]
    made += [
        Exemplar(placed(request, code, rng), "code_generation", complex=chance(rng, 0.5))
        for request in code_requests("code_generation")
        for code in rng.sample(codes, SNIPPETS_PER_REQUEST)
    ]
    for request in code_requests("code_completion"):
        for code in rng.sample(codes, SNIPPETS_PER_REQUEST):
            body = cut_off(code, rng) if chance(rng, 0.85) else code
            made.append(Exemplar(placed(request, body, rng), "code_completion", complex=False))
    for code in (e.prompt for e in written if e.category == "code_completion" and e.complex):
        for request in rng.sample(code_requests("code_completion"), REQUESTS_PER_HARD_COMPLETION):
            made.append(Exemplar(placed(request, code, rng), "code_completion", complex=True))
    for code in codes:
        cut = [cut_off(code, rng) for _ in range(CUTS_PER_SNIPPET)] + stubs(code)
        made += [Exemplar(part, "code_completion", complex=False) for part in cut]
        made.append(Exemplar(code, "code_explanation", complex=False))
    return made


def placed(request: str, code: str, rng: random.Random) -> str:
    """Return the request with the code behind or before it, in a fence or bare."""
    body = f"```\n{code}\n```" if chance(rng, 0.4) else code
    if chance(rng, 0.75):
        return request + rng.choice(("", ":", "?", "")) + rng.choice(("\n", "\n\n")) + body
    return f"{body}\n\n{request}"


def cut_off(code: str, rng: random.Random) -> str:
    """Return the start of the code, cut at a line or within one."""
    lines = code.split("\n")
    kept = lines[: max(1, int(len(lines) * rng.uniform(0.3, 0.9)))]
    if chance(rng, 0.4) and len(kept[-1].strip()) > 1:
        kept[-1] = kept[-1][: rng.randint(1, len(kept[-1]) - 1)]
    return "\n".join(kept)


def stubs(code: str) -> list[str]:
    """Return a Python function that has a docstring without its body, as editors and tests send it."""
    for quotes in ('"""', "'''"):
        start = code.find(quotes)
        end = code.find(quotes, start + 3)
        if start >= 0 and end >= 0:
            head = code[: end + 3]
            return [head, f"\n{head}\n", f"\n\n{head}", f"from typing import List\n\n\n{head}\n"]
    return []


def hasty(prompt: str, rng: random.Random) -> str:
    """Return the prompt as somebody in a hurry types it."""
    if chance(rng, 0.3):
        prompt = rng.choice(OPENINGS) + prompt
    if chance(rng, 0.4):
        prompt = prompt.lower()
    elif chance(rng, 0.3):
        prompt = prompt[:1].upper() + prompt[1:]
    if chance(rng, 0.3):
        prompt = prompt.rstrip(".?! ")
    elif chance(rng, 0.2):
        prompt = prompt.rstrip(".?! ") + rng.choice(CLOSINGS)
    return mistyped(prompt, rng) if chance(rng, 0.25) else prompt


def mistyped(prompt: str, rng: random.Random) -> str:
    """Return the prompt with one character swapped with the next, left out or doubled."""
    at = rng.randrange(max(1, len(prompt) - 1))
    first, second = prompt[at : at + 1], prompt[at + 1 : at + 2]
    return prompt[:at] + rng.choice([second + first, second, first + first + second]) + prompt[at + 2 :]


def chance(rng: random.Random, probability: float) -> bool:
    """Return True with a probability."""
    return rng.random() < probability
