"""``spec.task``: where prompts come from and how answers are graded."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from empg.api.base import Spec, field, section

GraderName = Literal["gsm8k-strict", "gsm8k-flexible", "math", "exact", "numeric", "function"]


class GraderSpec(Spec):
    """One grader and the limits each answer is graded under."""

    name: GraderName | None = field(None, change="live")
    """Rule that compares an answer with the gold answer. Absent: the task's own."""
    function: str | None = field(None, change="live", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """For `function`: import path `package.module:name` of `f(text, gold) -> float | None` (None: unparseable)."""
    tolerance: float = field(1e-6, change="live", ge=0)
    """For `numeric`: largest accepted difference, absolute or relative to the gold answer."""
    timeout_seconds: float = field(5.0, change="live", gt=0, le=600)
    """Wall-clock limit of one answer in seconds, from the start of its execution."""
    memory_mib: int = field(2048, change="live", ge=256, le=65536)
    """Address-space limit of a grading worker in MiB."""
    max_answer_chars: int = field(300, change="live", ge=1, le=100_000)
    """An extracted answer longer than this is unparseable."""
    workers: int = field(2, change="live", ge=1, le=64)
    """Grading processes per sampler."""

    @model_validator(mode="after")
    def _function_named(self) -> Self:
        if (self.name == "function") != (self.function is not None):
            raise ValueError("task.grader.function goes with task.grader.name: function; set both or neither")
        return self


class FieldsSpec(Spec):
    """Names of the columns of a data set."""

    prompt: str | None = field(None, change="immutable", min_length=1)
    """Column that holds the problem. Absent: the task's own; `question` for `dataset`."""
    answer: str | None = field(None, change="immutable", min_length=1)
    """Column that holds the gold answer. Absent: the task's own; `answer` for `dataset`."""


class TaskSpec(Spec):
    """Problems, prompt and grader."""

    name: Literal["arithmetic", "gsm8k", "math", "dataset"] = field(change="immutable")
    """`arithmetic`: synthetic word problems without end. `gsm8k`, `math`: the public sets. `dataset`: any rows."""
    source: str | None = field(None, change="immutable", min_length=1)
    """Hub id, or a .jsonl or .parquet file (relative to the manifest). Absent: the task's own hub id."""
    config: str | None = field(None, change="immutable", min_length=1)
    """Configuration name of a hub data set."""
    split: str = field("train", change="immutable", min_length=1)
    """Split to train on."""
    eval_source: str | None = field(None, change="immutable", min_length=1)
    """Like `source`, for held-out problems. Absent: `source`."""
    eval_split: str = field("test", change="immutable", min_length=1)
    """Split of held-out problems. With one local file for both, the last `evaluation.prompts` rows are held out."""
    fields: FieldsSpec = section(FieldsSpec)
    levels: tuple[int, ...] = field((), change="immutable", max_length=8)
    """`math`: difficulty levels to keep (1–5). `arithmetic`: reasoning steps per problem (1–4). Empty: the default."""
    template: str | None = field(None, change="immutable", min_length=1, max_length=20_000)
    """Jinja2 template of the prompt; `{{ prompt }}` is the problem and every column is a variable."""
    chat: bool = field(False, change="immutable")
    """Wrap the prompt into the tokenizer's chat template as a user message."""
    system: str | None = field(None, change="immutable", min_length=1, max_length=20_000)
    """System message of the chat template."""
    max_prompt_tokens: int = field(1024, change="immutable", ge=1, le=1_000_000)
    """Longer prompts are dropped when the task is loaded, and counted."""
    grader: GraderSpec = section(GraderSpec)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name == "dataset" and self.source is None:
            raise ValueError("task.source is required for task.name: dataset")
        if self.name == "dataset" and self.grader.name is None:
            raise ValueError("task.grader.name is required for task.name: dataset")
        if self.name == "arithmetic" and self.source is not None:
            raise ValueError("task.source has no meaning for task.name: arithmetic; remove it")
        if self.system is not None and not self.chat:
            raise ValueError("task.system needs task.chat: true")
        bound = {"arithmetic": 4, "math": 5}.get(self.name, 0)
        if any(not 1 <= level <= bound for level in self.levels):
            raise ValueError(
                f"task.levels must be within 1–{bound} for task.name: {self.name}"
                if bound
                else f"task.levels has no meaning for task.name: {self.name}; remove it"
            )
        return self
