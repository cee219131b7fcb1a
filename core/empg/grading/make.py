"""From a task's settings to its grader."""

from __future__ import annotations

from empg.api.task import GraderName, GraderSpec
from empg.grading.base import Grader
from empg.grading.boxed import BoxedMath
from empg.grading.exact import Exact
from empg.grading.function import Function
from empg.grading.gsm8k import Gsm8kFlexible, Gsm8kStrict
from empg.grading.numeric import Numeric

DEFAULTS: dict[str, GraderName] = {"arithmetic": "numeric", "gsm8k": "gsm8k-strict", "math": "math"}
"""Grader of each task that has its own."""


def make_grader(spec: GraderSpec, task: str) -> Grader:
    """The grader that `spec` names or, without a name, the task's own. `ValueError` when there is neither."""
    name = spec.name or DEFAULTS.get(task)
    cap = spec.max_answer_chars
    match name:
        case "gsm8k-strict":
            return Gsm8kStrict(name, cap)
        case "gsm8k-flexible":
            return Gsm8kFlexible(name, cap)
        case "math":
            return BoxedMath(name, cap)
        case "exact":
            return Exact(name, cap)
        case "numeric":
            return Numeric(name, cap, spec.tolerance, marked=task == "arithmetic")
        case "function":
            assert spec.function is not None
            return Function(name, spec.function)
        case None:
            raise ValueError(f"task.grader.name is required for task.name: {task}")
