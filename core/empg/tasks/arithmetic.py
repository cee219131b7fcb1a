"""Synthetic word problems without end, for models of any size: the demo's task.

A problem is a pure function of (seed, purpose, index). A hash of its text decides whether it belongs to training or is
held out, so no seed, level or index can bring a held-out problem into training.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple, TypeVar

from empg.tasks.problem import Example

Purpose = Literal["train", "heldout"]

DEFAULT_LEVELS = (2,)
DEFAULT_TEMPLATE = "Q: {{ prompt }}\nA:"

NAMES = ("Ana", "Ben", "Eva", "Jon", "Lea", "Max", "Mia", "Tom")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pens", "stamps")
OPERANDS = range(1, 20)
FACTORS = range(2, 6)
HELD_OUT_SHARE = 8
"""One text in this many is held out."""

_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_RESULTS = "wxyz"
_T = TypeVar("_T")


class Template(NamedTuple):
    """A story and the equations that solve it.

    `a` to `d` are operands, `j` and `k` factors, `w` to `z` the results of the first to fourth step, `n` and `m` two
    names and `t` the things that are counted.
    """

    story: str
    steps: tuple[str, ...]


TEMPLATES: Mapping[int, tuple[Template, ...]] = {
    1: (
        Template("{n} has {a} {t} and buys {b} more. How many {t} does {n} have now?", ("a+b",)),
        Template("{n} has {a} {t} and gives away {b}. How many {t} are left?", ("a-b",)),
        Template("{n} has {k} boxes with {a} {t} each. How many {t} does {n} have?", ("k*a",)),
        Template("{n} has {a} {t}. {m} has {k} times as many. How many {t} does {m} have?", ("a*k",)),
    ),
    2: (
        Template("{n} has {a} {t}, buys {b} more and finds {c}. How many {t} does {n} have now?", ("a+b", "w+c")),
        Template("{n} has {a} {t}, gives away {b} and buys {c}. How many {t} does {n} have now?", ("a-b", "w+c")),
        Template("{n} has {k} boxes with {a} {t} each and {b} more. How many {t} does {n} have?", ("k*a", "w+b")),
        Template("{n} has {k} boxes with {a} {t} each and loses {b}. How many {t} are left?", ("k*a", "w-b")),
        Template("{n} has {a} {t}. {m} has {k} times as many. How many {t} do both have?", ("a*k", "w+a")),
        Template("From {a} {t} {n} takes {b} and {m} takes {c}. How many {t} remain?", ("a-b", "w-c")),
    ),
    3: (
        Template(
            "{n} has {k} boxes with {a} {t} each, buys {b} more and loses {c}. How many {t} are left?",
            ("k*a", "w+b", "x-c"),
        ),
        Template(
            "{n} has {a} {t} and buys {b} more. {m} has {k} times as many. How many {t} do both have?",
            ("a+b", "w*k", "x+w"),
        ),
        Template(
            "{n} has {a} {t}, gives away {b} and finds {c}. {m} has {k} times as many. How many {t} does {m} have?",
            ("a-b", "w+c", "x*k"),
        ),
        Template(
            "{n} has {k} boxes with {a} {t} each. {m} has {j} boxes with {b} {t} each. How many {t} do both have?",
            ("k*a", "j*b", "w+x"),
        ),
    ),
    4: (
        Template(
            "{n} has {k} boxes with {a} {t} each. {m} has {j} boxes with {b} {t} each. Together they lose {c}. "
            "How many {t} are left?",
            ("k*a", "j*b", "w+x", "y-c"),
        ),
        Template(
            "{n} has {k} boxes with {a} {t} each, buys {b} more and loses {c}. {m} has {j} times as many. "
            "How many {t} does {m} have?",
            ("k*a", "w+b", "x-c", "y*j"),
        ),
        Template(
            "{n} has {a} {t}, buys {b} more, finds {c} and loses {d}. {m} has {k} times as many. "
            "How many {t} does {m} have?",
            ("a+b", "w+c", "x-d", "y*k"),
        ),
        Template(
            "{n} has {a} {t} and gives away {b}. {m} has {k} times as many and finds {c}. How many {t} do both have?",
            ("a-b", "w*k", "x+c", "w+y"),
        ),
    ),
}
"""Level (number of steps) -> templates."""


@dataclass(frozen=True)
class Arithmetic:
    """The endless sequence of problems of one seed and purpose."""

    seed: int
    purpose: Purpose
    levels: tuple[int, ...] = DEFAULT_LEVELS

    def example(self, index: int, draw: int = 0) -> Example:
        """The problem at `index`, or one that takes its place; its column `solution` is the reference solution."""
        rng = Random(_hash(f"{self.seed}|{self.purpose}|{index}" + (f"|{draw}" if draw else "")))
        level = _choose(rng, self.levels)
        template = _choose(rng, TEMPLATES[level])
        while True:
            solved = _instance(rng, template)
            if solved is not None and side(solved[0]) == self.purpose:
                question, equations, answer = solved
                columns = {
                    "question": question,
                    "level": level,
                    "solution": f" {'; '.join(equations)}; answer {answer}",
                    "answer": str(answer),
                }
                return Example(f"{self.purpose}-{index}", question, str(answer), columns)


def side(question: str) -> Purpose:
    """Whether a question may be trained on or is held out: a property of its text alone."""
    return "heldout" if _hash(question) % HELD_OUT_SHARE == 0 else "train"


def _instance(rng: Random, template: Template) -> tuple[str, tuple[str, ...], int] | None:
    """Question, equations and answer of a random instance; None when a step's result is below 1."""
    first, thing = _choose(rng, NAMES), _choose(rng, THINGS)
    second = _choose(rng, tuple(name for name in NAMES if name != first))
    values = {letter: _choose(rng, OPERANDS) for letter in "abcd"} | {letter: _choose(rng, FACTORS) for letter in "jk"}
    question = template.story.format(n=first, m=second, t=thing, **values)
    equations = []
    for result, step in zip(_RESULTS, template.steps, strict=False):
        left, sign, right = tuple(step)
        values[result] = _OPERATIONS[sign](values[left], values[right])
        if values[result] < 1:
            return None
        equations.append(f"{values[left]}{sign}{values[right]}={values[result]}")
    return question, tuple(equations), values[result]


def _choose(rng: Random, options: Sequence[_T]) -> _T:
    # Random.random is the one method whose stream Python promises to keep between versions.
    return options[int(rng.random() * len(options))]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
