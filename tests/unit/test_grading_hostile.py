r"""Answers made to hang, crash or fill the memory of the MATH grader, in a pool that must go on working."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

import pytest
from grading_processes import peak_rss_mib, workers

from empg.api.task import GraderSpec
from empg.grading import GradePool
from empg.verdict import Grade, Verdict

PATIENT = GraderSpec(name="math", timeout_seconds=30.0, memory_mib=512, workers=1)
IMPATIENT = GraderSpec(name="math", timeout_seconds=0.5, max_answer_chars=100_000, workers=1)
NORMAL_RSS_MIB = 256
"""A worker takes about 85 MiB after it has loaded math-verify."""


@pytest.fixture(scope="module")
def pool() -> Iterator[GradePool]:
    with GradePool(PATIENT, "math") as pool:
        yield pool


@pytest.fixture(scope="module")
def impatient() -> Iterator[GradePool]:
    with GradePool(IMPATIENT, "math") as pool:
        yield pool


def one(pool: GradePool, text: str, gold: str = "5") -> Grade:
    pool.submit("one", text, gold)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for _, grade in pool.poll(0.5):
            return grade
    raise AssertionError("no grade came back")


def nested(depth: int) -> str:
    return r"\boxed{" + r"\frac{1}{" * depth + "2" + "}" * depth + "}"


@pytest.mark.parametrize("expression", ["9^{9^{9^9}}", "(10^6)!"])
def test_endless_arithmetic_is_a_timeout(impatient: GradePool, expression: str) -> None:
    grade = one(impatient, rf"\boxed{{{expression}}}")
    assert (grade.verdict, grade.detail) == (Verdict.TIMEOUT, "time")
    assert math.isnan(grade.reward)


def test_deep_nesting_within_a_wide_limit_ends_too(impatient: GradePool) -> None:
    grade = one(impatient, nested(5_000))
    assert grade.verdict in (Verdict.WRONG, Verdict.TIMEOUT)
    assert grade.reward != 1.0


def test_pool_goes_on_after_all_that(impatient: GradePool) -> None:
    assert one(impatient, r"\boxed{5}").verdict == Verdict.CORRECT


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("{" * 1_000_000, Verdict.UNPARSEABLE, id="a megabyte of open braces"),
        pytest.param(r"\boxed{" + "{}" * 500_000 + "}", Verdict.UNPARSEABLE, id="a megabyte of braces in a box"),
        pytest.param("}" * 1_000_000 + r"\boxed{5}", Verdict.CORRECT, id="a box after a megabyte of braces"),
        pytest.param(nested(10_000), Verdict.UNPARSEABLE, id="10,000 nested fractions"),
        pytest.param("\x00" * 1000, Verdict.UNPARSEABLE, id="NUL bytes"),
        pytest.param("\\boxed{\x00}", Verdict.WRONG, id="a boxed NUL byte"),
        pytest.param("\x00\\boxed{5}\x00", Verdict.CORRECT, id="NUL bytes around a box"),
        pytest.param("\ud800 \\boxed{5} \udfff", Verdict.CORRECT, id="lone surrogates around a box"),
        pytest.param("\\boxed{\ud800}", Verdict.WRONG, id="a boxed lone surrogate"),
        pytest.param(r"\boxed{" + "(" * 40 + "5" + ")" * 39 + "}", Verdict.WRONG, id="unbalanced parentheses"),
    ],
)
def test_hostile_texts_get_a_verdict_and_keep_the_worker(pool: GradePool, text: str, verdict: Verdict) -> None:
    assert one(pool, r"\boxed{5}").verdict == Verdict.CORRECT
    before = workers(os.getpid())
    grade = one(pool, text)
    assert (grade.verdict, grade.reward) == (verdict, float(verdict == Verdict.CORRECT))
    assert workers(os.getpid()) == before
    assert max(map(peak_rss_mib, before)) < NORMAL_RSS_MIB


def test_memory_of_a_worker_is_bounded() -> None:
    # A MemoryError within a comparison is "not equal" to math-verify; a grade of "wrong" would be the grader's fault.
    spec = GraderSpec(name="math", timeout_seconds=60.0, memory_mib=256, workers=1)
    others = workers(os.getpid())
    with GradePool(spec, "math") as pool:
        assert one(pool, r"\boxed{5}").verdict == Verdict.CORRECT
        [worker] = set(workers(os.getpid())) - set(others)
        peak = 0
        pool.submit("hoards", r"\boxed{(2^{10^{8}})!}", "5")
        while not (grades := pool.poll(0.02)):
            peak = max(peak, peak_rss_mib(worker) or 0)
        [(_, grade)] = grades
        assert (grade.verdict, grade.detail) == (Verdict.TIMEOUT, "memory")
        assert 0 < peak <= spec.memory_mib
