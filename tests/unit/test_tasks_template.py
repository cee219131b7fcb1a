"""Prompt templates."""

import pytest

from empg.tasks.template import PromptTemplate


def test_columns_are_variables_and_prompt_is_the_problem() -> None:
    template = PromptTemplate("{{ prompt }} [{{ level }}]\n")
    assert template.render("2+2?", {"level": 5, "prompt": "shadowed"}) == "2+2? [5]\n"


def test_a_problem_is_never_a_template_nor_escaped() -> None:
    assert PromptTemplate("{{ prompt }}").render("{{ 1/0 }} <b> \\boxed{x}", {}) == "{{ 1/0 }} <b> \\boxed{x}"


def test_an_unknown_variable_names_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"task\.template: 'qestion' is undefined; available are: answer, prompt, topic"
    ):
        PromptTemplate("{{ qestion }}").render("p", {"topic": 1, "answer": 2})


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(ValueError, match=r"task\.template, line 2: "):
        PromptTemplate("first\n{{ prompt ")


def test_an_unknown_filter_is_refused_before_any_row_is_read() -> None:
    with pytest.raises(ValueError, match=r"task\.template, line 1: .*shout"):
        PromptTemplate("{{ prompt | shout }}")


@pytest.mark.parametrize("source", ["{{ prompt.__class__.__mro__ }}", "{{ prompt + 1 }}", "{{ 1 / 0 }}"])
def test_what_cannot_be_evaluated_is_an_error_of_the_template(source: str) -> None:
    with pytest.raises(ValueError, match=r"^task\.template: "):
        PromptTemplate(source).render("p", {})
