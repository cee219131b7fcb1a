r"""MATH: competition problems of five levels whose worked solutions put the answer in `\boxed{}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from empg.tasks.dataset import DataSet, column
from empg.tasks.rows import Row

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=[^\s{])")


def boxed_answer(solution: str) -> str | None:
    r"""Content of the last `\boxed{…}`, braces balanced; None when there is none or it is empty or unclosed."""
    boxes = list(_BOX.finditer(solution))
    if not boxes:
        return None
    start = boxes[-1].end()
    if solution[start] != "{":
        return re.split(r"[\s$.]", solution[start:], maxsplit=1)[0] or None
    depth, end = 0, start
    while end < len(solution):
        if solution[end] == "\\":
            end += 2
            continue
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if depth == 0:
            return solution[start + 1 : end].strip() or None
        end += 1
    return None


def of_level(row: Row, levels: Sequence[int]) -> bool:
    """Whether the column `level`, a number or `Level <number>`, is one of `levels`."""
    number = re.search(r"\d+", str(column(row, "task.levels: []", "level")))
    return number is not None and int(number.group()) in levels


MATH = DataSet(
    source="EleutherAI/hendrycks_math",
    configs=(
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    ),
    prompt="problem",
    answer="solution",
    template="{{ prompt }}\nPlease reason step by step, and put your final answer within \\boxed{}.",
    gold=boxed_answer,
    keeps=of_level,
)
