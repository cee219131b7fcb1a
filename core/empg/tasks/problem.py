"""One problem, as its data set states it and as the model is asked it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from empg.rundir.plan import PlannedPrompt

Encode = Callable[[str], list[int]]
"""Text of a prompt -> token ids, exactly those that the model is to continue."""
Chat = Callable[[list[dict[str, str]]], str]
"""Messages with `role` and `content` -> text of the prompt, by the tokenizer's chat template."""


@dataclass(frozen=True)
class Example:
    """A problem as its data set states it. `gold` is None when the row holds no answer."""

    prompt_id: str
    text: str
    gold: str | None
    columns: Mapping[str, object] = field(default_factory=dict)
    """All columns of the row; the prompt's template may use them."""


@dataclass(frozen=True)
class Problem:
    """A problem as the model is asked it: `prompt` is the text to continue, `gold` what the grader compares with."""

    prompt_id: str
    prompt: str
    gold: str

    def planned(self, encode: Encode) -> PlannedPrompt:
        """The problem with its token ids."""
        return PlannedPrompt(
            prompt_id=self.prompt_id, prompt=self.prompt, prompt_ids=tuple(encode(self.prompt)), gold=self.gold
        )
