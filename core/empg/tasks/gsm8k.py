"""GSM8K: grade-school word problems whose worked answers end in `#### <number>`."""

from __future__ import annotations

from empg.grading.gsm8k import gold_number
from empg.tasks.dataset import DataSet

GSM8K = DataSet(
    source="openai/gsm8k",
    configs=("main",),
    template='{{ prompt }} Let\'s think step by step and output the final answer after "####".',
    gold=gold_number,
)
