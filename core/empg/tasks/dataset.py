"""Any rows with a column for the problem and one for the gold answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from empg.api.task import FieldsSpec
from empg.tasks.problem import Example
from empg.tasks.rows import Row


def _whole(answer: str) -> str | None:
    return answer.strip() or None


@dataclass(frozen=True)
class DataSet:
    """How a finite task reads its rows; the defaults are those of `task.name: dataset`."""

    source: str | None = None
    """Hub id that stands in for an absent `task.source`."""
    configs: tuple[str | None, ...] = (None,)
    """The hub id's configurations, read one after another when `task.config` is absent."""
    prompt: str = "question"
    """Column that holds the problem, when `task.fields.prompt` is absent."""
    answer: str = "answer"
    """Column that holds the answer, when `task.fields.answer` is absent."""
    template: str = "{{ prompt }}"
    """The prompt, when `task.template` is absent."""
    gold: Callable[[str], str | None] = _whole
    """Gold answer in the text of the answer column; None when it holds none."""
    keeps: Callable[[Row, Sequence[int]], bool] | None = None
    """Whether a row is of one of `task.levels`."""

    def examples(
        self, rows: Iterator[Row], prefix: str, fields: FieldsSpec, levels: Sequence[int]
    ) -> Iterator[Example]:
        """Examples of all rows of the wanted levels. ValueError when a row lacks a column."""
        for number, row in enumerate(rows):
            if levels and self.keeps is not None and not self.keeps(row, levels):
                continue
            text = column(row, "task.fields.prompt", fields.prompt or self.prompt)
            answer = column(row, "task.fields.answer", fields.answer or self.answer)
            gold = None if answer is None else self.gold(_text(row, "answer", answer))
            yield Example(f"{prefix}-{number}", _text(row, "problem", text), gold, row.columns)


ANY_ROWS = DataSet()


def column(row: Row, field: str, name: str) -> object:
    """The value of a column. ValueError, with the row's columns, when it has none of that name."""
    if name not in row.columns:
        raise ValueError(f"{row.place}: no column {name!r} (set {field}); its columns are: {', '.join(row.columns)}")
    return row.columns[name]


def _text(row: Row, what: str, value: object) -> str:
    """A text or number as text. ValueError for anything else, and for text that has no UTF-8 form."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{row.place}: the {what} must be a text or a number, not {type(value).__name__}")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{row.place}: the {what} is not valid Unicode: {error.reason}") from error
    return text
