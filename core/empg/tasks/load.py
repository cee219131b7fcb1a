"""From a manifest's task to prompts: read, render, encode, and leave out what cannot be trained on."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from jinja2 import TemplateError

from empg.api.task import TaskSpec
from empg.grading import make_grader
from empg.rundir.plan import PlannedPrompt
from empg.tasks import arithmetic
from empg.tasks.arithmetic import Arithmetic
from empg.tasks.dataset import ANY_ROWS
from empg.tasks.gsm8k import GSM8K
from empg.tasks.math import MATH
from empg.tasks.problem import Chat, Encode, Example, Problem
from empg.tasks.rows import Location, locate
from empg.tasks.source import FiniteSource, Task
from empg.tasks.template import PromptTemplate

_LOG = logging.getLogger(__name__)

DATA_SETS = {"gsm8k": GSM8K, "math": MATH, "dataset": ANY_ROWS}

PROBED = 256
"""Problems of an endless task whose prompts are measured when it is loaded."""
DRAWS = 100
"""Problems that are drawn for one index of an endless task until a prompt is short enough."""


@dataclass(frozen=True)
class Asker:
    """Makes the text that a model is asked from a problem: template, then chat template."""

    template: PromptTemplate
    system: str | None
    chat: Chat | None

    def ask(self, example: Example) -> str:
        """The prompt's text. ValueError when the chat template refuses it."""
        text = self.template.render(example.text, example.columns)
        if self.chat is None:
            return text
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        try:
            return self.chat([*system, {"role": "user", "content": text}])
        except TemplateError as error:
            remedy = "; leave task.system out, or put it into task.template" if system else ""
            raise ValueError(f"task.chat: the model's chat template refuses the messages: {error}{remedy}") from error


@dataclass(frozen=True)
class EndlessSource:
    """Prompts of a synthetic task."""

    problems: Arithmetic
    asker: Asker
    encode: Encode
    max_tokens: int

    @property
    def size(self) -> None:
        """There is no last prompt."""
        return

    def prompt(self, index: int, draws: int = DRAWS) -> PlannedPrompt:
        """The prompt at `index`, drawn again while it is too long. ValueError when all draws are."""
        for draw in range(draws):
            example = self.problems.example(index, draw)
            assert example.gold is not None, "a synthetic problem has an answer"
            planned = Problem(example.prompt_id, self.asker.ask(example), example.gold).planned(self.encode)
            length = len(planned.prompt_ids)
            if length <= self.max_tokens:
                return planned
        raise ValueError(
            f"task.maxPromptTokens ({self.max_tokens}) is below the {length} tokens of a prompt of "
            "task.name: arithmetic; raise it or shorten task.template"
        )


def load_task(spec: TaskSpec, *, seed: int, heldout: int, base_dir: Path, encode: Encode, chat: Chat | None) -> Task:
    """The task that a manifest asks for.

    `heldout` is the number of held-out prompts; a data set with fewer gives what it has. Files are relative to
    `base_dir`. `encode` gives the token ids that the model is to continue, so with `task.chat` it must not add special
    tokens that the chat template already wrote; `chat` is None when the tokenizer has no chat template. ValueError when
    the task cannot be read, or when nothing is left of it.
    """
    if spec.chat and chat is None:
        raise ValueError("task.chat: the model's tokenizer has no chat template; use task.template instead")
    default = arithmetic.DEFAULT_TEMPLATE if spec.name == "arithmetic" else DATA_SETS[spec.name].template
    asker = Asker(PromptTemplate(spec.template or default), spec.system, chat if spec.chat else None)
    if spec.name == "arithmetic":
        return _endless(spec, seed, heldout, asker, encode)
    return _finite(spec, heldout, base_dir, asker, encode)


def _endless(spec: TaskSpec, seed: int, heldout: int, asker: Asker, encode: Encode) -> Task:
    def source(purpose: arithmetic.Purpose) -> EndlessSource:
        problems = Arithmetic(seed, purpose, spec.levels or arithmetic.DEFAULT_LEVELS)
        return EndlessSource(problems, asker, encode, spec.max_prompt_tokens)

    train = source("train")
    for index in range(PROBED):
        train.prompt(index, draws=1)  # One so early means many, which nobody wants to be left out.
    # A few of many drawn problems coincide; each is to be evaluated once.
    distinct: dict[str, PlannedPrompt] = {}
    drawn = map(source("heldout").prompt, range(100 * heldout))
    while len(distinct) < heldout:
        prompt = next(drawn, None)
        if prompt is None:
            raise ValueError(
                f"evaluation.prompts: {100 * heldout} problems gave only {len(distinct)} different prompts; lower it, "
                "or check task.template"
            )
        distinct.setdefault(prompt.prompt, prompt)
    return Task(train, tuple(distinct.values()))


def _finite(spec: TaskSpec, heldout: int, base_dir: Path, asker: Asker, encode: Encode) -> Task:
    data_set = DATA_SETS[spec.name]
    grader = make_grader(spec.grader, spec.name)
    dropped: Counter[str] = Counter()

    def usable(examples: Iterable[Example]) -> Iterator[Problem]:
        for example in examples:
            if example.gold is None:
                dropped["gold missing"] += 1
            elif not grader.gold_ok(example.gold):
                dropped["gold unparseable"] += 1
            elif not (length := len(encode(text := asker.ask(example)))):
                dropped["prompt empty"] += 1
            elif length > spec.max_prompt_tokens:
                dropped["prompt too long"] += 1
            else:
                yield Problem(example.prompt_id, text, example.gold)

    def read(places: tuple[Location, ...], prefix: str, most: int | None = None) -> list[Problem]:
        before = dropped.copy()
        rows = chain.from_iterable(place.rows() for place in places)
        examples: Iterable[Example] = data_set.examples(rows, prefix, spec.fields, spec.levels)
        if most is not None:
            examples = sorted(examples, key=_rank)
        problems = list(islice(usable(examples), most))
        if not problems:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in (dropped - before).items()) or "no rows"
            raise ValueError(
                f"{places[0].named_by}: no usable problem in {places[0].source} ({reasons}); check task.fields, "
                "task.levels, task.grader and task.maxPromptTokens"
            )
        return problems

    def locations(named_by: str, source: str | None, split: str) -> tuple[Location, ...]:
        """Where the rows of a split are: several places for a hub id that spreads over configurations."""
        name = source or data_set.source
        assert name is not None, "the API model requires task.source where there is no default"
        configs = data_set.configs if name == data_set.source and spec.config is None else (spec.config,)
        return tuple(locate(named_by, name, config, split, base_dir) for config in configs)

    train_at = locations("task.source", spec.source, spec.split)
    eval_at = (
        locations("task.evalSource", spec.eval_source, spec.eval_split)
        if spec.eval_source
        else locations("task.source", spec.source, spec.eval_split)
    )
    train = read(train_at, "train")
    if heldout == 0:
        held: list[Problem] = []
    elif train_at == eval_at:
        if len(train) <= heldout:
            raise ValueError(
                f"task.source: the last {heldout} rows (evaluation.prompts) are held out, but only {len(train)} are "
                "usable; lower evaluation.prompts or set task.evalSource"
            )
        train, held = train[:-heldout], train[-heldout:]
    else:
        held = read(eval_at, "heldout", heldout)
    evaluated = {problem.prompt for problem in held}
    trained = tuple(problem for problem in train if problem.prompt not in evaluated)
    if repeated := len(train) - len(trained):
        dropped["also held out"] = repeated
    if not trained:
        raise ValueError(f"task.source: all {len(train)} problems of {train_at[0].source} are also held out")
    if dropped:
        _LOG.warning("task %s: dropped %s", spec.name, ", ".join(f"{n} ({reason})" for reason, n in dropped.items()))
    return Task(FiniteSource(trained, encode), tuple(problem.planned(encode) for problem in held), dict(dropped))


def _rank(example: Example) -> bytes:
    """By which problems are held out where there are more than are asked for: sets are often sorted by topic."""
    return hashlib.blake2b(example.text.encode(), digest_size=8).digest()
