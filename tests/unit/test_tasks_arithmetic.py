"""The synthetic task: pure, right, and never mixing training and held-out problems."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg.tasks.arithmetic import FACTORS, NAMES, OPERANDS, TEMPLATES, THINGS, Arithmetic, Purpose, side

PURPOSES: tuple[Purpose, ...] = ("train", "heldout")


def equations(solution: object) -> tuple[list[tuple[int, str, int, int]], int]:
    """The steps and the answer that a reference solution states."""
    *steps, answer = str(solution).split("; ")
    parsed = [re.fullmatch(r" ?(\d+)([-+*])(\d+)=(\d+)", step) for step in steps]
    final = re.fullmatch(r"answer (\d+)", answer)
    assert all(parsed), solution
    assert final, solution
    return [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in parsed if m], int(final[1])


def evaluate(left: int, sign: str, right: int) -> int:
    if sign == "+":
        return left + right
    return left - right if sign == "-" else left * right


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31 - 1), index=st.integers(0, 10**9), purpose=st.sampled_from(PURPOSES))
def test_a_problem_is_a_pure_function_of_seed_purpose_and_index(seed: int, index: int, purpose: Purpose) -> None:
    assert Arithmetic(seed, purpose).example(index) == Arithmetic(seed, purpose).example(index)


def test_the_sequence_is_the_one_that_earlier_runs_saw() -> None:
    example = Arithmetic(0, "train").example(0)
    assert (example.text, example.columns["solution"]) == (
        "Mia has 4 boxes with 11 cards each and 13 more. How many cards does Mia have?",
        " 4*11=44; 44+13=57; answer 57",
    )


def test_other_seeds_and_indices_give_other_problems() -> None:
    texts = [Arithmetic(seed, "train").example(index).text for seed in range(10) for index in range(100)]
    assert len(set(texts)) > 950


@pytest.mark.parametrize("level", TEMPLATES)
def test_every_reference_solution_is_right_and_has_a_step_per_level(level: int) -> None:
    for index in range(500):
        example = Arithmetic(3, "train", (level,)).example(index)
        steps, answer = equations(example.columns["solution"])
        assert len(steps) == level
        for left, sign, right, result in steps:
            assert evaluate(left, sign, right) == result >= 1
        assert str(answer) == example.gold == example.columns["answer"]
        assert steps[-1][3] == answer


@pytest.mark.parametrize("level", TEMPLATES)
def test_every_step_uses_numbers_of_the_story_or_results_before_it(level: int) -> None:
    for index in range(200):
        example = Arithmetic(4, "train", (level,)).example(index)
        known = [int(number) for number in re.findall(r"\d+", example.text)]
        steps, _ = equations(example.columns["solution"])
        for left, _sign, right, result in steps:
            assert left in known
            assert right in known
            known.append(result)
        assert set(known[: -len(steps)]) <= {*OPERANDS, *FACTORS}


def test_the_default_level_shows_all_its_templates_names_and_things() -> None:
    examples = [Arithmetic(0, "train").example(index) for index in range(1000)]
    shapes = {re.sub(r"\d+|" + "|".join((*NAMES, *THINGS)), "_", example.text) for example in examples}
    assert len(shapes) == len(TEMPLATES[2]) == 6
    words = " ".join(example.text for example in examples)
    assert len(NAMES) == len(THINGS) == 8
    assert all(word in words for word in (*NAMES, *THINGS))


def test_levels_are_mixed() -> None:
    levels = [Arithmetic(0, "train", (1, 3)).example(index).columns["level"] for index in range(200)]
    assert 60 < levels.count(1) < 140
    assert levels.count(1) + levels.count(3) == 200


@pytest.mark.parametrize("level", TEMPLATES)
def test_no_training_problem_is_held_out_whatever_the_seeds(level: int) -> None:
    train = {Arithmetic(1, "train", (level,)).example(index).text for index in range(20_000)}
    heldout = {Arithmetic(2, "heldout", (level,)).example(index).text for index in range(2000)}
    assert not train & heldout
    assert all(side(text) == "train" for text in train)
    assert all(side(text) == "heldout" for text in heldout)
