"""The examples' manifests, tasks and base model fit together."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

from empg.api.load import load_run
from empg.api.run import RunSpec
from empg.tasks.load import load_task

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("example", "size"), [("demo", None), ("gsm8k", 40)])
def test_every_prompt_is_kept_and_fits_the_base_model(example: str, size: int | None) -> None:
    spec = load_run(EXAMPLES / example / "empgrun.yaml").spec
    assert spec.model.name is not None
    model = EXAMPLES / example / spec.model.name
    config = json.loads((model / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    task = load_task(
        spec.task,
        seed=spec.em.seed,
        heldout=spec.evaluation.prompts,
        base_dir=EXAMPLES / example,
        encode=lambda text: tokenizer.encode(text).ids,
        chat=None,
    )
    assert task.train.size == size
    assert task.dropped == {}
    assert len(task.heldout) == spec.evaluation.prompts
    prompts = [task.train.prompt(index) for index in range(size or 200)] + list(task.heldout)
    assert max(max(prompt.prompt_ids) for prompt in prompts) < config["vocab_size"] == tokenizer.get_vocab_size()
    assert spec.model_length <= config["max_position_embeddings"]
    assert all(tokenizer.decode(prompt.prompt_ids) == prompt.prompt for prompt in prompts)


def test_what_the_documentation_of_training_shows_can_be_used() -> None:
    text = (EXAMPLES.parent / "docs/training.md").read_text()
    data, grader = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    data["spec"] |= {"model": {"name": "x"}, "em": {"iterations": 1}}
    task = RunSpec.model_validate(data["spec"]).task
    assert (task.name, task.eval_source, task.template) == ("dataset", "test.jsonl", "{{ prompt }}\nAnswer:")
    data["spec"]["task"] |= grader["spec"]["task"]
    assert RunSpec.model_validate(data["spec"]).task.grader.function == "mygrader:grade"
    (function,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(function, names)
    assert (names["grade"]("It is FOUR.", "four"), names["grade"]("five", "four")) == (1.0, 0.0)
