r"""Mathematics: the content of the last `\boxed{…}`, compared by math-verify.

The settings are those that math-verify recommends for rewards: malformed operators in the response are not mended, and
boxes that stand close together are one answer, so that a model can't hedge. Its own time-outs stay off: they need
SIGALRM in a main thread, and `GradePool` kills whatever takes too long. An answer that math-verify fails to compare is
wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from empg.grading.base import AnswerGrader

SEARCHED_CHARS = 100_000
"""Boxes are looked for in this many characters at the end of a response."""

_TOKEN = re.compile(r"(?P<open>\\boxed[ \t]*\{|\{)|(?P<close>\})|\\.", re.DOTALL)
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:(?:\\[,;: ]|[~ ])\d{3})+(?!\d)")
"""A number whose thousands are set apart by spaces."""
_LETTERS = re.compile(r"[A-Z]{2,}|[A-Za-z]{4,}")
"""A word, or an order of names. Shorter lower-case ones are products of variables."""
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LIST = re.compile(r"\b(?:and|or)\b")
_SEPARATOR = re.compile(r"\b(?:and|or)\b|[,;]")


class Box(NamedTuple):
    r"""One `\boxed{…}`: where it starts, where its content starts, and where content and box end."""

    start: int
    inside: int
    end: int


def boxes(text: str) -> list[Box]:
    """The closed boxes that are in no other box, in order of appearance, in one pass over the text."""
    opened: list[re.Match[str]] = []
    found: list[Box] = []
    for token in _TOKEN.finditer(text):
        if token["open"]:
            opened.append(token)
        elif token["close"] and opened:
            opening = opened.pop()
            if opening["open"] != "{":
                while found and found[-1].start > opening.start():
                    found.pop()
                found.append(Box(opening.start(), opening.end(), token.end()))
    return found


def boxed_answer(text: str) -> str | None:
    """Content of the last box, after those of the boxes that belong to it, with commas between; None without a box.

    A box belongs to the next one when fewer than 10 characters are between them, or fewer than 70 with `and`, `or`, a
    comma or a semicolon among them, as for math-verify.
    """
    contents: list[str] = []
    next_start = len(text)
    for box in reversed(boxes(text)):
        gap = text[box.end : next_start]
        if contents and not (len(gap) < 10 or (len(gap) < 70 and _SEPARATOR.search(gap))):
            break
        contents.append(text[box.inside : box.end - 1].strip())
        next_start = box.start
    return ",".join(dict.fromkeys(filter(None, reversed(contents)))) or None


@cache
def _settings(malformed_operators: bool) -> tuple[Any, ...]:
    # Imported late: it takes a second, and only grading needs it.
    import logging

    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    # It warns, at each first use, that the caller must see to time-outs.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    normalization = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=malformed_operators, nits=False, boxed="all", equations=False
    )
    return (LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization),)


def _parse(answer: str, malformed_operators: bool = False) -> list[Any]:
    """What math-verify makes of an answer: the expression, when it is one, and its normalised text. Empty: nothing."""
    settings = _settings(malformed_operators)
    from math_verify import parse

    answer = _GROUPED.sub(lambda number: re.sub(r"\D", "", number[0]), answer)
    return list(parse(rf"\boxed{{{answer}}}", settings, parsing_timeout=None))


@lru_cache(maxsize=1024)
def _parse_gold(gold_answer: str) -> list[Any]:
    # Gold answers of public sets are written in any style (`\frac34`), so they are mended; the text as it stands is
    # kept too, so that an answer in the very same words is never wrong.
    return _parse(gold_answer, malformed_operators=True) + _parse(gold_answer)


@lru_cache(maxsize=4096)
def _same(answer: str, gold_answer: str) -> bool:
    from math_verify import verify

    # math-verify is not symmetric: the gold answer comes first.
    return bool(verify(_parse_gold(gold_answer), _parse(answer), timeout_seconds=None))


def _word(answer: str) -> str:
    """An answer without fonts and spaces; nothing where it lists several."""
    text = _TEXT.sub(r"\1", answer)
    return "" if _LIST.search(text) else re.sub(r"[\s$]|\\[ ,;:]", "", text)


@dataclass(frozen=True)
class BoxedMath(AnswerGrader):
    r"""The boxed answer must be equivalent to the gold answer, which is an expression or a solution that boxes one."""

    def find(self, text: str) -> str | None:
        return boxed_answer(text[-SEARCHED_CHARS:])

    def gold_answer(self, gold: str) -> str | None:
        answer = boxed_answer(gold) or gold.strip()
        balanced = boxed_answer(rf"\boxed{{{answer}}}") == answer
        return answer if balanced and len(answer) <= self.max_answer_chars and _parse_gold(answer) else None

    def matches(self, answer: str, gold_answer: str) -> bool:
        word, given = _word(gold_answer), _word(answer).replace(",", "")
        if _LETTERS.fullmatch(word) and (given.casefold() == word.casefold() or _LETTERS.fullmatch(given)):
            # math-verify would take the letters for factors, which may be in any order.
            return given.casefold() == word.casefold()
        return _same(answer, gold_answer)

    def warm_up(self) -> None:
        """Import math-verify and let it compile its patterns."""
        assert self.matches("0.5", r"\frac{1}{2}")
