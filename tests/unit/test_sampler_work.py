import pytest
from rundir_samples import RUN, a_plan

from empg.rundir.plan import Plan, sample_seed
from empg.rundir.status import Claim
from empg.rundir.units import mismatch
from empg.verdict import Grade, Verdict
from empg_sampler.engine import Completion
from empg_sampler.work import Answer, Work


def a_work(plan: Plan) -> Work:
    return Work(plan, plan.units[0], 1, Claim(sampler="a", incarnation="1", policy=2), plan.grader)


def completion(answer: Answer, *, reason: str = "stop", logprob: float = -1.0) -> Completion:
    return Completion(answer.request_id, (7, 9), (logprob, -2.0), "x", reason, ((2, 2),))


def test_every_sample_of_every_prompt_is_asked_for_once_with_the_planned_seed() -> None:
    plan = a_plan(samples=3)
    work = a_work(plan)
    answers = list(work.answers())
    assert [(answer.prompt, answer.sample) for answer in answers] == [(p, s) for p in range(2) for s in range(3)]
    assert len({answer.request_id for answer in answers}) == 6
    assert work.seed(answers[4]) == sample_seed(plan.seed, "rollout", 3, "p1", 1)
    assert work.prompt(answers[4]).prompt_id == "p1"


def test_a_request_id_names_its_answer() -> None:
    answer = Answer("eval", 12, "01-0007", 2, 3, 4, 1)
    assert Answer.parse(answer.request_id) == answer
    assert answer.of == ("eval", 12, "01-0007", 2)


def test_a_work_is_known_by_what_its_answers_are_of() -> None:
    work = a_work(a_plan())
    assert {answer.of for answer in work.answers()} == {work.key}


def test_rows_are_what_the_plan_asks_for_in_its_order() -> None:
    plan = a_plan()
    work = a_work(plan)
    for answer in reversed(list(work.answers())):
        assert not work.done
        work.completions[answer.prompt, answer.sample] = completion(answer)
        grade = Grade(Verdict.WRONG, float(answer.sample), {"exact": float(answer.sample)})
        work.grades[answer.prompt, answer.sample] = grade
    assert work.done
    rows = work.rows()
    assert mismatch(plan, "00-0000", rows) is None
    assert [(row.prompt_id, row.sample, row.reward) for row in rows] == [
        ("p0", 0, 0.0),
        ("p0", 1, 1.0),
        ("p1", 0, 0.0),
        ("p1", 1, 1.0),
    ]
    assert (rows[0].run, rows[0].response, rows[0].logprobs, rows[0].verdict) == (RUN, "x", (-1.0, -2.0), "wrong")
    assert rows[1].rewards == {"exact": 1.0}


@pytest.mark.parametrize(
    ("reason", "logprob", "answered"),
    [
        ("stop", -1.0, True),
        ("length", -1.0, True),
        ("abort", -1.0, False),
        ("error", -1.0, False),
        ("stop", float("nan"), False),
        ("length", float("-inf"), False),
    ],
)
def test_what_counts_as_an_answer(reason: str, logprob: float, answered: bool) -> None:
    answer = next(a_work(a_plan()).answers())
    assert completion(answer, reason=reason, logprob=logprob).answered is answered
