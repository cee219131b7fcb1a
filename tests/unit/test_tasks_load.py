"""From a task's manifest to prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from empg.api.task import TaskSpec
from empg.tasks.load import load_task
from empg.tasks.problem import Chat
from empg.tasks.source import Task

DATA = Path(__file__).parents[1] / "data"


def encode(text: str) -> list[int]:
    """One token per byte."""
    return list(text.encode())


def load(heldout: int = 0, base_dir: Path = DATA, chat: Chat | None = None, **fields: Any) -> Task:
    spec = TaskSpec.model_validate(fields)
    return load_task(spec, seed=0, heldout=heldout, base_dir=base_dir, encode=encode, chat=chat)


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def sums(numbers: range) -> list[dict[str, object]]:
    return [{"question": f"{n}+1?", "answer": str(n + 1)} for n in numbers]


EXACT: dict[str, Any] = {"name": "dataset", "grader": {"name": "exact"}}


def test_gsm8k_reads_the_number_after_the_mark() -> None:
    task = load(name="gsm8k", source="gsm8k.jsonl")
    assert task.train.size == 4
    first = task.train.prompt(0)
    assert first.gold == "72"
    assert first.prompt.startswith("Natalia sold clips to 48 of her friends")
    assert first.prompt.endswith('? Let\'s think step by step and output the final answer after "####".')
    assert list(first.prompt_ids) == encode(first.prompt)
    assert task.heldout == ()
    assert task.dropped == {}


def test_math_reads_the_last_box_and_drops_rows_without_an_answer() -> None:
    task = load(name="math", source="math.jsonl")
    assert [task.train.prompt(index).gold for index in range(task.train.size or 0)] == [
        "\\frac{4-x}{5}",
        "-\\frac{1}{13} - \\frac{5}{13}i",
        "2",
    ]
    assert task.train.prompt(0).prompt.endswith("put your final answer within \\boxed{}.")
    assert task.dropped == {"gold missing": 1}


def test_math_levels(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"problem": f"p{n}", "solution": f"\\boxed{{{n}}}", "level": level}
        for n, level in enumerate(("Level 1", "Level 3", 3, "Level ?", "Level 5"))
    ]
    source = write(tmp_path / "math.jsonl", rows)
    task = load(name="math", source=source, base_dir=tmp_path, levels=(3, 5))
    assert [task.train.prompt(index).prompt[:2] for index in range(3)] == ["p1", "p2", "p4"]
    assert task.train.size == 3
    with pytest.raises(
        ValueError, match=r"task\.source: no usable problem in .*math\.jsonl \(no rows\); check .*levels"
    ):
        load(name="math", source=source, base_dir=tmp_path, levels=(2,))


def test_rows_that_cannot_be_trained_on_are_dropped_and_counted(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        *sums(range(3)),
        {"question": "long " * 50, "answer": "1"},
        {"question": "", "answer": "1"},
        {"question": "no answer", "answer": None},
        {"question": "no number", "answer": "many"},
    ]
    source = write(tmp_path / "a.jsonl", rows)
    task = load(name="dataset", source=source, base_dir=tmp_path, max_prompt_tokens=20, grader={"name": "numeric"})
    assert task.train.size == 3
    assert task.dropped == {"prompt too long": 1, "prompt empty": 1, "gold missing": 1, "gold unparseable": 1}


def test_gsm8k_rows_without_a_number_are_dropped(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": "a", "answer": "1+1\n#### 1,002"},
        {"question": "b", "answer": "#### none"},
    ]
    task = load(name="gsm8k", source=write(tmp_path / "a.jsonl", rows), base_dir=tmp_path)
    assert (task.train.size, task.train.prompt(0).gold, task.dropped) == (1, "1002", {"gold missing": 1})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": ["a"], "answer": "1"}, "the problem must be a text or a number, not list"),
        ({"question": None, "answer": "1"}, "the problem must be a text or a number, not NoneType"),
        ({"question": "a", "answer": True}, "the answer must be a text or a number, not bool"),
        ({"question": "a \ud800", "answer": "1"}, "the problem is not valid Unicode"),
    ],
)
def test_a_cell_that_is_no_text_is_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    source = write(tmp_path / "a.jsonl", [*sums(range(1)), row])
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: {message}"):
        load(**EXACT, source=source, base_dir=tmp_path)


def test_nothing_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", sums(range(3)))
    with pytest.raises(ValueError, match=r"task\.source: no usable problem in .*a\.jsonl \(prompt too long: 3\)"):
        load(**EXACT, source=source, base_dir=tmp_path, max_prompt_tokens=2)


@pytest.mark.parametrize(("key", "field"), [("prompt", "task.fields.prompt"), ("answer", "task.fields.answer")])
def test_a_wrong_field_names_the_columns_and_the_place(tmp_path: Path, key: str, field: str) -> None:
    source = write(tmp_path / "a.jsonl", sums(range(3)))
    with pytest.raises(ValueError, match=rf"a\.jsonl:1: no column 'x' \(set {field}\); .* question, answer"):
        load(**EXACT, source=source, base_dir=tmp_path, fields={key: "x"})


def test_fields_and_template_use_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"q": "1+1?", "a": 2, "unit": "apples"}])
    task = load(
        **EXACT,
        source=source,
        base_dir=tmp_path,
        fields={"prompt": "q", "answer": "a"},
        template="{{ prompt }} ({{ unit }})",
    )
    assert (task.train.prompt(0).prompt, task.train.prompt(0).gold) == ("1+1? (apples)", "2")


def test_one_file_holds_its_last_rows_out(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", sums(range(10)))
    task = load(**EXACT, source=source, base_dir=tmp_path, heldout=3)
    assert [prompt.prompt for prompt in task.heldout] == ["7+1?", "8+1?", "9+1?"]
    assert [task.train.prompt(index).prompt for index in range(7)] == [f"{n}+1?" for n in range(7)]
    assert task.train.size == 7
    with pytest.raises(ValueError, match=r"last 10 rows \(evaluation\.prompts\) are held out, but only 10 are usable"):
        load(**EXACT, source=source, base_dir=tmp_path, heldout=10)


def test_a_second_file_is_held_out_and_its_problems_leave_training(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", sums(range(10))), write(tmp_path / "b.jsonl", sums(range(8, 14)))
    task = load(**EXACT, source=train, eval_source=test, base_dir=tmp_path, heldout=3)
    assert len({prompt.prompt for prompt in task.heldout} & {f"{n}+1?" for n in range(8, 14)}) == 3
    task = load(**EXACT, source=train, eval_source=test, base_dir=tmp_path, heldout=6)
    assert {prompt.prompt for prompt in task.heldout} == {f"{n}+1?" for n in range(8, 14)}
    assert task.train.size == 8
    assert task.dropped == {"also held out": 2}
    ids = [task.train.prompt(index).prompt_id for index in range(8)] + [prompt.prompt_id for prompt in task.heldout]
    assert len(set(ids)) == len(ids)


def test_what_is_held_out_of_a_set_that_is_sorted_by_topic_is_of_all_topics(tmp_path: Path) -> None:
    topics = [[{"question": f"{topic} {n}?", "answer": str(n)} for n in range(100)] for topic in ("add", "sub", "mul")]
    train = write(tmp_path / "train.jsonl", sums(range(3)))

    def heldout(rows: list[dict[str, object]]) -> set[str]:
        test = write(tmp_path / "test.jsonl", rows)
        task = load(**EXACT, source=train, eval_source=test, base_dir=tmp_path, heldout=60)
        return {prompt.prompt for prompt in task.heldout}

    chosen = heldout([row for topic in topics for row in topic])
    assert len(chosen) == 60
    assert all(10 <= sum(prompt.startswith(topic) for prompt in chosen) <= 30 for topic in ("add", "sub", "mul"))
    assert heldout([row for topic in reversed(topics) for row in reversed(topic)]) == chosen


def test_a_second_file_with_the_same_problems_only_leaves_nothing(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", sums(range(3))), write(tmp_path / "b.jsonl", sums(range(3)))
    with pytest.raises(ValueError, match=r"task\.source: all 3 problems .* are also held out"):
        load(**EXACT, source=train, eval_source=test, base_dir=tmp_path, heldout=3)


def test_arithmetic_is_endless_with_distinct_held_out_problems() -> None:
    task = load(name="arithmetic", levels=(1,), heldout=2000)
    assert task.train.size is None
    assert task.train.prompt(10**9).prompt_id == "train-1000000000"
    prompts = [prompt.prompt for prompt in task.heldout]
    assert len(set(prompts)) == len(prompts) == 2000
    assert all(prompt.startswith("Q: ") and prompt.endswith("?\nA:") for prompt in prompts)


def test_arithmetic_prompts_that_coincide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluation\.prompts: 300 problems gave only 1 different prompts"):
        load(name="arithmetic", template="constant", heldout=3)


def test_arithmetic_that_is_too_long_is_refused_at_load_time() -> None:
    with pytest.raises(ValueError, match=r"task\.maxPromptTokens \(40\) is below the \d+ tokens"):
        load(name="arithmetic", max_prompt_tokens=40)


def test_a_rare_arithmetic_prompt_that_is_too_long_is_drawn_again() -> None:
    free = load(name="arithmetic").train
    rare = free.prompt(300)

    def long_for_one(text: str) -> list[int]:
        return encode(text) * 50 if text == rare.prompt else encode(text)

    spec = TaskSpec(name="arithmetic")
    bounded = load_task(spec, seed=0, heldout=0, base_dir=DATA, encode=long_for_one, chat=None).train
    other = bounded.prompt(300)
    assert other.prompt_id == rare.prompt_id
    assert other.prompt != rare.prompt
    assert bounded.prompt(299) == free.prompt(299)


def as_chat(messages: list[dict[str, str]]) -> str:
    return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


def test_chat_wraps_the_rendered_template() -> None:
    plain = load(name="arithmetic", template="{{ prompt }}!", chat=as_chat).train.prompt(0).prompt
    spec = TaskSpec(name="arithmetic", template="{{ prompt }}!", chat=True, system="Be brief.")
    task = load_task(spec, seed=0, heldout=0, base_dir=DATA, encode=encode, chat=as_chat)
    assert task.train.prompt(0).prompt == f"<system>Be brief.<user>{plain}<assistant>"
    with pytest.raises(ValueError, match=r"task\.chat: the model's tokenizer has no chat template"):
        load_task(spec, seed=0, heldout=0, base_dir=DATA, encode=encode, chat=None)


def test_a_chat_template_that_refuses_the_messages_is_told_with_what_it_says() -> None:
    def without_system(messages: list[dict[str, str]]) -> str:
        if messages[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return as_chat(messages)

    spec = TaskSpec(name="arithmetic", chat=True, system="Be brief.")
    with pytest.raises(ValueError, match=r"task\.chat: .* System role not supported; leave task\.system out"):
        load_task(spec, seed=0, heldout=0, base_dir=DATA, encode=encode, chat=without_system)
    plain = spec.model_copy(update={"system": None})
    assert load_task(plain, seed=0, heldout=0, base_dir=DATA, encode=encode, chat=without_system).train.prompt(0)


def test_a_template_with_an_unknown_column_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"task\.template: 'hint' is undefined; available are: answer, prompt, question"
    ):
        load(name="gsm8k", source="gsm8k.jsonl", template="{{ hint }}")
