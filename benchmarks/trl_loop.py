"""GRPO steps of TRL's trainer over the prompts of a finished run of ours.

    python benchmarks/trl_loop.py RUN_DIR ITERATIONS {vllm,transformers}

Same model, prompts, batch and lengths; generation by vLLM in the trainer's process or by transformers. Prints the
seconds of each step, with generation, reward and update, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from demo_run import ENGINE, read_run, reward

os.environ |= ENGINE | {"VLLM_CPU_KVCACHE_SPACE": "1"}

from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Stopwatch(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start of generation."""
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """End of the optimizer step."""
        self.seconds.append(time.perf_counter() - self._began)


def main() -> None:
    """Run the trainer."""
    iterations, generation = int(sys.argv[2]), sys.argv[3]
    run = read_run(Path(sys.argv[1]), iterations)
    spec = run.spec
    rows = [{"prompt": prompt.prompt, "gold": prompt.gold} for prompts in run.prompts for prompt in prompts]
    answers = spec.em.prompts_per_iteration * spec.em.samples_per_prompt
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as output:
        trainer = GRPOTrainer(
            model=run.base,
            reward_funcs=lambda completions, gold, **_: [reward(*pair) for pair in zip(completions, gold, strict=True)],
            args=GRPOConfig(
                output_dir=output,
                use_cpu=True,
                bf16=False,
                model_init_kwargs={"dtype": "float32"},
                max_steps=iterations,
                per_device_train_batch_size=answers,
                num_generations=spec.em.samples_per_prompt,
                max_completion_length=spec.sampler.max_tokens,
                temperature=1.0,
                learning_rate=spec.optimizer.learning_rate,
                lr_scheduler_type="constant",
                beta=0.0,
                gradient_checkpointing=False,
                use_vllm=generation == "vllm",
                vllm_mode="colocate",
                vllm_max_model_length=spec.model_length,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(run.base),
            callbacks=[stopwatch],
        )
        trainer.train()
    print(json.dumps(stopwatch.seconds))


if __name__ == "__main__":
    main()
