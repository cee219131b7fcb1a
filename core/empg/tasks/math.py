r"""MATH: competition problems of five levels whose worked solutions put the answer in `\boxed{}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from empg.grading.boxed import boxed_answer
from empg.tasks.dataset import DataSet, column
from empg.tasks.rows import Row


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
