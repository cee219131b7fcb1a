"""`spec.task`: where prompts come from and how answers are graded."""

from __future__ import annotations

from typing import Literal

from empg.api.base import Spec, field, section
from empg.api.rule import Rule

GraderName = Literal["gsm8k-strict", "gsm8k-flexible", "math", "exact", "numeric", "function"]


class GraderSpec(Spec):
    """One grader and the limits each answer is graded under."""

    name: GraderName | None = field(None, change="live")
    """Rule that compares an answer with the gold answer. Absent: the task's own."""
    function: str | None = field(
        None, change="live", max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"
    )
    """For `function`: import path `package.module:name` of `f(text, gold) -> float | None` (None: unparseable)."""
    tolerance: float = field(1e-6, change="live", ge=0, le=1e6)
    """For `numeric`: largest accepted difference, absolute or relative to the gold answer."""
    timeout_seconds: float = field(5.0, change="live", gt=0, le=600)
    """Wall-clock limit of one answer in seconds, from the start of its execution."""
    memory_mib: int = field(2048, change="live", ge=256, le=65536)
    """Address-space limit of a grading worker in MiB."""
    max_answer_chars: int = field(300, change="live", ge=1, le=100_000)
    """An extracted answer longer than this is unparseable."""
    workers: int = field(2, change="live", ge=1, le=64)
    """Grading processes per sampler."""

    rules = (
        Rule(
            "function",
            "task.grader.function goes with task.grader.name: function; set both or neither",
            cel="(has(self.name) && self.name == 'function') == has(self.__function__)",
            holds=lambda grader: (grader.name == "function") == (grader.function is not None),
        ),
    )


class FieldsSpec(Spec):
    """Names of the columns of a data set."""

    prompt: str | None = field(None, change="immutable", min_length=1, max_length=255)
    """Column that holds the problem. Absent: the task's own; `question` for `dataset`."""
    answer: str | None = field(None, change="immutable", min_length=1, max_length=255)
    """Column that holds the gold answer. Absent: the task's own; `answer` for `dataset`."""


class TaskSpec(Spec):
    """Problems, prompt and grader."""

    name: Literal["arithmetic", "gsm8k", "math", "dataset"] = field(change="immutable")
    """`arithmetic`: synthetic word problems without end. `gsm8k`, `math`: the public sets. `dataset`: any rows."""
    source: str | None = field(None, change="immutable", min_length=1, max_length=4096)
    """Hub id, or a .jsonl or .parquet file, relative to the manifest (in a cluster, to the root of the claim). Absent:
    the task's own hub id."""
    config: str | None = field(None, change="immutable", min_length=1, max_length=255)
    """Configuration name of a hub data set."""
    split: str = field("train", change="immutable", min_length=1, max_length=255)
    """Split to train on."""
    eval_source: str | None = field(None, change="immutable", min_length=1, max_length=4096)
    """Like `source`, for held-out problems. Absent: `source`."""
    eval_split: str = field("test", change="immutable", min_length=1, max_length=255)
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

    rules = (
        Rule(
            "source",
            "task.source is required for task.name: dataset",
            cel="self.name != 'dataset' || has(self.source)",
            holds=lambda task: task.name != "dataset" or task.source is not None,
        ),
        Rule(
            "grader.name",
            "task.grader.name is required for task.name: dataset",
            cel="self.name != 'dataset' || has(self.grader.name)",
            holds=lambda task: task.name != "dataset" or task.grader.name is not None,
        ),
        Rule(
            "source",
            "task.source has no meaning for task.name: arithmetic; remove it",
            cel="self.name != 'arithmetic' || !has(self.source)",
            holds=lambda task: task.name != "arithmetic" or task.source is None,
        ),
        Rule(
            "system",
            "task.system needs task.chat: true",
            cel="!has(self.system) || self.chat",
            holds=lambda task: task.system is None or task.chat,
        ),
        Rule(
            "levels",
            "task.levels has no meaning for a task.name ({self.name}) other than arithmetic and math; remove it",
            cel="self.levels.size() == 0 || self.name in ['arithmetic', 'math']",
            holds=lambda task: not task.levels or task.name in ("arithmetic", "math"),
        ),
        Rule(
            "levels",
            "task.levels must be within 1–4 for task.name: arithmetic",
            cel="self.name != 'arithmetic' || self.levels.all(level, level >= 1 && level <= 4)",
            holds=lambda task: task.name != "arithmetic" or all(1 <= level <= 4 for level in task.levels),
        ),
        Rule(
            "levels",
            "task.levels must be within 1–5 for task.name: math",
            cel="self.name != 'math' || self.levels.all(level, level >= 1 && level <= 5)",
            holds=lambda task: task.name != "math" or all(1 <= level <= 5 for level in task.levels),
        ),
    )
