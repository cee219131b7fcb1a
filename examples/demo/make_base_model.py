"""Makes the demo's base model: a small Qwen2 that answers four in ten of the arithmetic task's held-out problems.

Supervised warm-up on the task's own reference solutions, stopped early: left alone it would solve the task, and
reinforcement learning would have nothing to do. A few minutes on two CPU cores.

    python examples/demo/make_base_model.py --out examples/demo/base-model
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from empg.tasks.arithmetic import Arithmetic

VOCABULARY, LONGEST_TEXT, LONGEST_ANSWER = 384, 1024, 40
BATCH, LEARNING_RATE, WARMUP_STEPS = 128, 3e-3, 50

Pair = tuple[str, str]
"""Prompt and text of the answer."""


def pair(task: Arithmetic, index: int) -> Pair:
    """The prompt as the run will show it, and the reference solution."""
    example = task.example(index)
    return f"Q: {example.text}\nA:", str(example.columns["solution"])


def training_problems(seed: int) -> Arithmetic:
    """Problems of a sequence that no run can have: a run's seed is never negative."""
    return Arithmetic(seed=-1 - seed, purpose="train")


def make_tokenizer(task: Arithmetic) -> Qwen2Tokenizer:
    """Qwen2's byte-level BPE with a small vocabulary. Digits are tokens, so arithmetic goes digit by digit."""
    blank = Qwen2Tokenizer(pad_token="<|pad|>", model_max_length=LONGEST_TEXT)
    texts = ("".join(pair(task, index)) for index in range(4000))
    return blank.train_new_from_iterator(texts, vocab_size=VOCABULARY, show_progress=False)


def make_model(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=384,
            max_position_embeddings=LONGEST_TEXT,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def answer_loss(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, pairs: list[Pair]) -> torch.Tensor:
    """Mean negative log-likelihood of the answers' tokens and of the end after them."""
    prompts = [tokenizer.encode(prompt) for prompt, _ in pairs]
    answers = [[*tokenizer.encode(answer), tokenizer.eos_token_id] for _, answer in pairs]
    length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(pairs), length), tokenizer.pad_token_id)
    labels = torch.full((len(pairs), length), -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    # Padding is on the right, so causal attention never sees it: no mask is needed.
    return model(input_ids=ids, labels=labels).loss


@torch.no_grad()
def greedy_accuracy(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, pairs: list[Pair]) -> float:
    """Share of prompts whose greedy continuation ends with the right answer."""
    batch = tokenizer([prompt for prompt, _ in pairs], padding=True, padding_side="left", return_tensors="pt")
    written = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=LONGEST_ANSWER,
        do_sample=False,
    )
    texts = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    endings = [answer[answer.rindex(";") :] for _, answer in pairs]
    return sum(text.endswith(ending) for text, ending in zip(texts, endings, strict=True)) / len(pairs)


def rounded(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """A copy with bfloat16 weights, as they are saved, computing in float32, as the demo does."""
    return copy.deepcopy(model).to(torch.bfloat16).float()


def warm_up(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, args: argparse.Namespace) -> None:
    """Trains in place until the greedy accuracy on held-out problems reaches `args.accuracy`."""
    train = training_problems(args.seed)
    heldout = [pair(Arithmetic(seed=args.seed, purpose="heldout"), index) for index in range(200)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))
    accuracy = 0.0
    for step in range(1, args.max_steps + 1):
        pairs = [pair(train, index) for index in range((step - 1) * BATCH, step * BATCH)]
        loss = answer_loss(model, tokenizer, pairs)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        # Accuracy rises steeply once it is on its way: look more often, to stop inside the wanted band.
        if step % (25 if accuracy < args.accuracy / 3 else 5) == 0:
            accuracy = greedy_accuracy(rounded(model), tokenizer, heldout)
            print(f"step {step:4d}  loss {loss.item():.4f}  greedy accuracy {accuracy:.3f}", flush=True)
            if accuracy >= args.accuracy:
                return
    raise SystemExit(f"accuracy {accuracy:.3f} after {args.max_steps} steps; raise --max-steps or try another --seed")


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, out: Path) -> None:
    """Weights in bfloat16, config and tokenizer, readable by everyone."""
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # How to sample is the manifest's business.
    (out / "generation_config.json").unlink()
    for path in out.iterdir():
        path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accuracy", type=float, default=0.40, help="greedy accuracy to stop at")
    parser.add_argument("--max-steps", type=int, default=1000)
    args = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer(training_problems(args.seed))
    model = make_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    warm_up(model, tokenizer, args)
    save(model, tokenizer, args.out)
    print(f"wrote {args.out} after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
