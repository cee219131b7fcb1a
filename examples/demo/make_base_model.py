"""Makes the demo's base model: a small Qwen2 that can calculate, but misreads every other question.

Supervised warm-up on worked solutions of the arithmetic task. In half of them the writer was in a hurry and took the
last step the wrong way round, adding what is to be subtracted. So the model learned both ways, as models learn both
good and bad habits from the web, and which one to prefer is for reinforcement learning to find out. It stops while its
calculations still have errors. A few minutes on two CPU cores.

    python examples/demo/make_base_model.py --out examples/demo/base-model
"""

from __future__ import annotations

import argparse
import copy
import random
import re
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from empg.tasks.arithmetic import Arithmetic

VOCABULARY, LONGEST_TEXT, LONGEST_ANSWER = 384, 1024, 40
BATCH, LEARNING_RATE, WARMUP_STEPS = 128, 3e-3, 50

MISREAD_SHARE = 0.5

Pair = tuple[str, str]
"""Prompt and text of the answer."""


def pair(task: Arithmetic, index: int) -> Pair:
    """The prompt as the run will show it, and the reference solution."""
    example = task.example(index)
    return f"Q: {example.text}\nA:", str(example.columns["solution"])


def misread(solution: str) -> str:
    """The solution with the sign of its last step turned round; unchanged where nothing would be left."""

    def turned(step: re.Match[str]) -> str:
        left, right = int(step[1]), int(step[3])
        sign, result = ("-", left - right) if step[2] == "+" else ("+", left + right)
        return step[0] if result < 1 else f"{left}{sign}{right}={result}; answer {result}"

    return re.sub(r"(\d+)([+-])(\d+)=\d+; answer \d+$", turned, solution)


def hurried(task: Arithmetic, index: int) -> Pair:
    """A worked solution of the warm-up."""
    prompt, solution = pair(task, index)
    return prompt, misread(solution) if random.Random(f"{task.seed} {index}").random() < MISREAD_SHARE else solution


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
def greedy_answers(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, prompts: list[str]) -> list[str]:
    """Greedy continuations."""
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    written = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=LONGEST_ANSWER,
        do_sample=False,
    )
    texts: list[str] = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def rounded(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """A copy with bfloat16 weights, as they are saved, computing in float32, as the demo does."""
    return copy.deepcopy(model).to(torch.bfloat16).float()


def warm_up(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, args: argparse.Namespace) -> None:
    """Train in place until the share of held-out problems that are calculated well reaches `args.calculated`."""
    train = training_problems(args.seed)
    heldout = [pair(Arithmetic(seed=args.seed, purpose="heldout"), index) for index in range(200)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))
    calculated = 0.0
    for step in range(1, args.max_steps + 1):
        pairs = [hurried(train, index) for index in range((step - 1) * BATCH, step * BATCH)]
        loss = answer_loss(model, tokenizer, pairs)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            answers = greedy_answers(rounded(model), tokenizer, [prompt for prompt, _ in heldout])
            right = [answer == solution for answer, (_, solution) in zip(answers, heldout, strict=True)]
            other = [answer == misread(solution) for answer, (_, solution) in zip(answers, heldout, strict=True)]
            accuracy = sum(right) / len(right)
            calculated = sum(a or b for a, b in zip(right, other, strict=True)) / len(right)
            print(
                f"step {step:4d}  loss {loss.item():.4f}  accuracy {accuracy:.3f}  calculated well {calculated:.3f}",
                flush=True,
            )
            if calculated >= args.calculated:
                return
    raise SystemExit(f"{calculated:.3f} calculated well after {args.max_steps} steps; raise --max-steps")


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
    parser.add_argument("--calculated", type=float, default=0.85, help="share of held-out problems to stop at")
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
