"""Settings of the rules: tolerance, limits of length, each task's own rule, and a user's function."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg.api.task import GraderName, GraderSpec
from empg.grading import make_grader
from empg.verdict import Verdict

MEBI = 1_000_000
RULES: list[GraderName] = ["gsm8k-strict", "gsm8k-flexible", "math", "exact", "numeric"]


@pytest.mark.parametrize(("task", "name"), [("arithmetic", "numeric"), ("gsm8k", "gsm8k-strict"), ("math", "math")])
def test_tasks_have_their_own_grader(task: str, name: str) -> None:
    assert make_grader(GraderSpec(), task).name == name


def test_a_data_set_has_no_grader_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"task\.grader\.name is required for task\.name: dataset"):
        make_grader(GraderSpec(), "dataset")


def test_arithmetic_takes_only_a_number_after_answer() -> None:
    grader = make_grader(GraderSpec(), "arithmetic")
    assert grader.grade(" 3+4=7; 7*2=14; answer 14", "14").verdict == Verdict.CORRECT
    assert grader.grade(" 3+4=7; 7*2=14; answer 13", "14").verdict == Verdict.WRONG
    assert grader.grade(" 3+4=7; 7*2=14", "14").verdict == Verdict.UNPARSEABLE
    assert grader.grade(" 3+4=7; 7*2=14; answer", "14").verdict == Verdict.UNPARSEABLE


@pytest.mark.parametrize(
    ("tolerance", "text", "gold", "verdict"),
    [
        (0.0, "14", "14", "correct"),
        (0.0, "14.0000001", "14", "wrong"),
        (0.01, "0.009", "0", "correct"),  # absolute
        (0.01, "0.011", "0", "wrong"),
        (0.01, "1009", "1000", "correct"),  # relative
        (0.01, "1011", "1000", "wrong"),
    ],
)
def test_tolerance_is_absolute_or_relative_to_gold(tolerance: float, text: str, gold: str, verdict: str) -> None:
    assert make_grader(GraderSpec(name="numeric", tolerance=tolerance), "dataset").grade(text, gold).verdict == verdict


@pytest.mark.parametrize(
    ("name", "text"),
    [("gsm8k-strict", "#### 12345"), ("gsm8k-flexible", "12345"), ("math", r"\boxed{12345}"), ("exact", "12345")],
)
def test_answers_over_the_limit_of_length_are_not_found(name: GraderName, text: str) -> None:
    gold = "1234"
    assert make_grader(GraderSpec(name=name, max_answer_chars=5), "x").grade(text, gold).verdict == Verdict.WRONG
    assert make_grader(GraderSpec(name=name, max_answer_chars=4), "x").grade(text, gold).verdict == Verdict.UNPARSEABLE
    assert not make_grader(GraderSpec(name=name, max_answer_chars=3), "x").gold_ok(gold)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{" * MEBI, id="open braces"),
        pytest.param("}" * MEBI, id="close braces"),
        pytest.param("{}" * (MEBI // 2), id="braces"),
        pytest.param(r"\boxed{" * (MEBI // 7), id="open boxes"),
        pytest.param(r"\boxed{1}" * (MEBI // 9), id="boxes"),
        pytest.param("\\" * MEBI, id="backslashes"),
        pytest.param("9" * MEBI, id="digits"),
        pytest.param("9," * (MEBI // 2), id="digits and commas"),
        pytest.param("9,999" * (MEBI // 5), id="thousands"),
        pytest.param("-" * MEBI, id="signs"),
        pytest.param("#### " * (MEBI // 5), id="marks"),
        pytest.param("answer " * (MEBI // 7), id="answers"),
        pytest.param(" " * MEBI, id="spaces"),
        pytest.param("\x00" * MEBI, id="NUL"),
    ],
)
def test_a_megabyte_of_anything_is_searched_in_linear_time(name: GraderName, text: str) -> None:
    grader = make_grader(GraderSpec(name=name), "dataset")
    grader.warm_up()
    start = time.monotonic()
    assert grader.grade(text, "18").reward == 0.0
    assert time.monotonic() - start < 5  # about 0.1 s on a free machine; a quadratic search takes hours


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.sampled_from("0123456789,.-−$#{}\\ \x00\ud800answerboxed") | st.characters(), max_size=60))
def test_any_text_gets_a_reward(text: str) -> None:
    for name in RULES:
        grade = make_grader(GraderSpec(name=name), "dataset").grade(text, "18")
        assert grade.verdict.trains
        assert grade.reward == float(grade.verdict == Verdict.CORRECT)


def test_function_decides_the_reward() -> None:
    grader = make_grader(GraderSpec(name="function", function="grading_functions:act"), "dataset")
    assert grader.gold_ok("")
    graded = grader.grade("reward", "0.25")
    assert (graded.verdict, graded.reward, graded.parts) == (Verdict.CORRECT, 0.25, {"function": 0.25})
    assert grader.grade("reward", "0").verdict == Verdict.WRONG
    assert grader.grade("reward", "-1").reward == -1
    assert grader.grade("reward", "-1").verdict == Verdict.WRONG
    assert (grader.grade("none", "").verdict, grader.grade("none", "").reward) == (Verdict.UNPARSEABLE, 0.0)


@pytest.mark.parametrize(
    ("text", "gold", "error", "message"),
    [
        ("reward", "nan", ValueError, "returned nan; a reward must be finite"),
        ("reward", "inf", ValueError, "returned inf; a reward must be finite"),
        ("text", "", TypeError, "returned str; it must return float or None"),
        ("raise", "18", KeyError, "18"),
    ],
)
def test_function_without_a_reward_raises(text: str, gold: str, error: type[Exception], message: str) -> None:
    grader = make_grader(GraderSpec(name="function", function="grading_functions:act"), "dataset")
    with pytest.raises(error, match=message):
        grader.grade(text, gold)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:f", "no_such_module:f can't be imported .* PYTHONPATH"),
        ("grading_functions:no_such", "grading_functions:no_such can't be imported"),
        ("grading_functions:not_callable", "grading_functions:not_callable is no function"),
    ],
)
def test_function_that_is_none_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_grader(GraderSpec(name="function", function=path), "dataset").warm_up()


def test_making_graders_loads_neither_engines_nor_math_verify() -> None:
    program = (
        "import sys; from empg.grading import GradePool, make_grader; from empg.api.task import GraderSpec\n"
        "make_grader(GraderSpec(name='math'), 'math'), make_grader(GraderSpec(name='function', function='a:b'), 'x')\n"
        "print([name for name in ('torch', 'vllm', 'transformers', 'math_verify', 'sympy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
