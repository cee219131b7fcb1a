"""The plainest on-policy loop there is: one process, vLLM's `generate`, one padded PyTorch step, weights handed over.

    python benchmarks/plain_loop.py RUN_DIR ITERATIONS

Takes model, prompts and settings from a finished run, and makes as many iterations with an objective of its own (reward
less the prompt's mean). Nothing is stored, checked or able to go on after a crash. Prints the seconds of each iteration
as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from demo_run import CORES, ENGINE, read_run, reward

os.environ |= ENGINE | {"TORCHDYNAMO_DISABLE": "1"}

import torch
from transformers import AutoModelForCausalLM
from vllm import LLM, SamplingParams


def padded(sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [N, longest]."""
    longest = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (longest - len(sequence)) for sequence in sequences])
    return ids, torch.arange(longest)[None] < torch.tensor([len(sequence) for sequence in sequences])[:, None]


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: list[tuple[list[int], list[int]]],
    advantages: torch.Tensor,
) -> None:
    """One step on all (prompt, answer) at once; `advantages` [N]."""
    ids, mask = padded([prompt + answer for prompt, answer in rows])
    position = torch.arange(ids.shape[1])[None]
    answered = mask & (position >= torch.tensor([len(prompt) for prompt, _ in rows])[:, None])
    logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]
    logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
    loss = -(advantages[:, None] * logprobs * answered[:, 1:]).sum() / answered.sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    """Run the loop."""
    iterations = int(sys.argv[2])
    run = read_run(Path(sys.argv[1]), iterations)
    spec = run.spec
    llm = LLM(
        run.base,
        dtype="float32",
        enforce_eager=True,
        enable_chunked_prefill=False,
        max_model_len=spec.model_length,
        max_num_seqs=spec.sampler.max_concurrent_sequences,
        kv_cache_memory_bytes=(spec.sampler.kv_cache_mib or 64) << 20,
    )
    torch.set_num_threads(int(CORES))
    model = AutoModelForCausalLM.from_pretrained(run.base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.optimizer.learning_rate, weight_decay=0.0)
    sampling = SamplingParams(n=spec.em.samples_per_prompt, max_tokens=spec.sampler.max_tokens, logprobs=0)
    seconds = []
    for prompts in run.prompts:
        started = time.perf_counter()
        inputs = [{"prompt_token_ids": list(prompt.prompt_ids)} for prompt in prompts]
        groups = [output.outputs for output in llm.generate(inputs, sampling, use_tqdm=False)]
        pairs = [(prompt, answer) for prompt, group in zip(prompts, groups, strict=True) for answer in group]
        rewards = torch.tensor([reward(answer.text, prompt.gold) for prompt, answer in pairs])
        rewards = rewards.view(len(prompts), -1)
        advantages = (rewards - rewards.mean(1, keepdim=True)).flatten()
        rows = [(list(prompt.prompt_ids), list(answer.token_ids)) for prompt, answer in pairs]
        step(model, optimizer, rows, advantages)
        weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        llm.reset_prefix_cache()
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
