"""Answers that share the tokens of their prompt, beside the same answers each with its own.

    python benchmarks/shared_prompts.py [--quick]

Forward and backward pass of a small model over the answers to some prompts, in turns; medians of milliseconds, after a
check that both ways give the same log-probs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as our learner has it; set before torch is imported

import torch
from host import describe
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config

from empg_trainer.attention import PACKED
from empg_trainer.batch import Bundle, collate, share_prompts
from empg_trainer.policy import Policy

SAMPLES = 8
SHAPES = {
    "prompt 27, answer 23": (32, 27, 23),
    "prompt 150, answer 250": (4, 150, 250),
    "prompt 100, answer 1500": (1, 100, 1500),
}
"""Prompts, tokens of each and of each answer: the demo's, like GSM8K, and a long chain of thought."""


class Problem(NamedTuple):
    """Token ids."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


def small_model(layers: int) -> Policy:
    """Some million parameters."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    return Policy(AutoModelForCausalLM.from_config(config, attn_implementation=PACKED), chunk_tokens=1024)


def problems(prompts: int, prompt: int, answer: int) -> list[Problem]:
    """Random tokens, `SAMPLES` answers per prompt."""
    found = []
    for _ in range(prompts):
        ids = tuple(torch.randint(2048, (prompt,)).tolist())
        found += [Problem(ids, tuple(torch.randint(2048, (answer,)).tolist())) for _ in range(SAMPLES)]
    return found


def once(policy: Policy, rows: Sequence[Problem], bundles: Sequence[Bundle]) -> tuple[float, Tensor]:
    """Seconds of a forward and a backward pass, and the log-probs."""
    policy.zero_grad()
    started = time.perf_counter()
    logprobs, _ = policy(**collate(rows, bundles).inputs(), temperature=1.0)
    logprobs.sum().backward()
    return time.perf_counter() - started, logprobs.detach()


def main() -> None:
    """Print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="one round and one layer, for a look whether it works")
    quick = arguments.parse_args().quick
    rounds = 1 if quick else 7
    print(describe())
    print(f"{'milliseconds':28}{'own prompts':>14}{'shared':>14}{'ratio':>14}")
    policy = small_model(layers=1 if quick else 4)
    for name, shape in SHAPES.items():
        rows = problems(*shape)
        own = [[index] for index in range(len(rows))]
        shared = share_prompts(rows, range(len(rows)), world=1, budget=len(rows) * sum(shape[1:]))
        torch.testing.assert_close(once(policy, rows, shared)[1], once(policy, rows, own)[1], atol=1e-4, rtol=0)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for found, bundles in zip(times, (own, shared), strict=True):
                found.append(once(policy, rows, bundles)[0])
        before, after = (1000 * statistics.median(found) for found in times)
        print(f"{name:28}{before:14.1f}{after:14.1f}{before / after:14.2f}")


if __name__ == "__main__":
    main()
