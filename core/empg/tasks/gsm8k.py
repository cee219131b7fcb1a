"""GSM8K: grade-school word problems whose worked answers end in `#### <number>`."""

from __future__ import annotations

from empg.tasks.dataset import DataSet


def gold_number(answer: str) -> str | None:
    """The number after the last `####`, without thousands separators; None when there is none."""
    _, mark, number = answer.rpartition("####")
    return number.strip().replace(",", "") or None if mark else None


GSM8K = DataSet(
    source="openai/gsm8k",
    configs=("main",),
    template='{{ prompt }} Let\'s think step by step and output the final answer after "####".',
    gold=gold_number,
)
