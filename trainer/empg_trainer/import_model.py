"""The base model, brought into the run directory once as policy 0. Afterwards nothing outside it is read."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx
from torch import Tensor
from transformers import PreTrainedModel

from empg.api.model import FromRun, ModelSpec
from empg.hub import HubAway, away
from empg.rundir.group import group_dir, newest_policy, publish_policy
from empg.rundir.keys import policy_prefix
from empg.rundir.owner import LearnerOwner
from empg.store.base import Store
from empg.store.posix import PosixStore
from empg_trainer.attention import PACKED
from empg_trainer.batch import collate
from empg_trainer.deepspeed_engine import DTYPES
from empg_trainer.models import load_directory, policy_manifest
from empg_trainer.policy import Policy
from empg_trainer.publish import policy_files

logger = logging.getLogger(__name__)

ASSETS = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")
"""Endings of the files beside the weights that a model may need."""

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.15}
"""Largest accepted difference of a log-prob in nats between our forward pass and the model's own, in `check`."""


def import_model(store: Store, owner: LearnerOwner, spec: ModelSpec, base_dir: Path, longest: int) -> None:
    """Publish the base model as policy 0, in `spec.dtype`, for sequences of up to `longest` tokens.

    Raises:
        ValueError: the model can't be had, or can't be trained; the message names the field and the remedy.
        HubAway: the hub does not answer for now.
    """
    directory = locate(spec, base_dir)
    dtype = DTYPES[spec.dtype]
    try:
        model = load_directory(str(directory), dtype, spec.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"model: {directory} can't be loaded as a causal language model: {error}") from error
    check(model, longest)
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if not parameter.isfinite().all():
            raise ValueError(f"model: parameter {name} of {directory} is not finite; use an intact model")
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    weights = ((name, parameter.detach()) for name, parameter in parameters.items())
    files = policy_files(model, weights, shapes, dtype, _assets(directory, spec.dtype), write=True)
    publish_policy(store, owner, 0, files, {"base": spec.model_dump(mode="json", by_alias=True)})
    logger.info("published %s as policy 0", spec.name or spec.from_run)


def locate(spec: ModelSpec, base_dir: Path) -> Path:
    """Local directory of the model, downloaded from the hub where needed; raises as `import_model` does."""
    if spec.from_run is not None:
        return _policy_of(spec.from_run, base_dir)
    assert spec.name is not None, "the API model requires a source"
    local = base_dir / spec.name
    if local.is_dir():
        return local
    if spec.name.startswith((".", "/", "~")):
        raise ValueError(f"model.name: there is no directory {local}; correct the path (relative to {base_dir})")
    try:
        found = snapshot_download(
            spec.name,
            revision=spec.revision,
            allow_patterns=["*.safetensors", *(f"*{ending}" for ending in ASSETS)],
        )
    except (httpx.HTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        if reason := away(error):
            raise HubAway(
                f"model.name: {constants.ENDPOINT} does not give {spec.name} for now: {reason}. "
                "Name a local directory instead, or point HF_HOME to a cache that holds it"
            ) from error
        raise ValueError(
            f"model.name: {spec.name} is no directory below {base_dir} and the hub does not give it: {error}"
        ) from error
    return Path(found)


def _policy_of(source: FromRun, base_dir: Path) -> Path:
    if source.run_dir is None:
        raise ValueError("model.fromRun.name needs a cluster; name the directory with model.fromRun.runDir")
    root = base_dir / source.run_dir
    store = PosixStore(root)
    version = newest_policy(store) if source.policy is None else source.policy
    if version is None:
        raise ValueError(f"model.fromRun.runDir: {root} holds no policy")
    return group_dir(store, policy_prefix(version), policy_manifest(store, version))


class _Problem(NamedTuple):
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


def check(model: PreTrainedModel, longest: int) -> None:
    """ValueError unless packing and our head give the log-probs that the model itself gives.

    Catches models with recurrent layers, an attention of their own, or logits that are scaled or capped; output weights
    that samplers would tie and we would not; and rotary frequencies that depend on the lengths of other sequences, for
    sequences of up to `longest` tokens.
    """
    _check_ties(model)
    _check_positions(model, longest)
    vocabulary = model.get_input_embeddings().num_embeddings

    def tokens(start: int, count: int) -> tuple[int, ...]:
        return tuple(number % vocabulary for number in range(start, start + count))

    problems = [_Problem(tokens(5, 3), tokens(at, 4)) for at in (8, 40)] + [_Problem(tokens(90, 1), tokens(91, 5))]
    policy = Policy(model, chunk_tokens=4).eval()
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        own = torch.cat([_own_logprobs(model, problem) for problem in problems])
        model.set_attn_implementation(PACKED)
        ours, _ = policy(**collate(problems, [[0, 1], [2]]).inputs(), temperature=1.0)
    difference = (ours - own).abs().max().item()
    dtype = next(model.parameters()).dtype
    if not difference <= TOLERANCES[dtype]:
        raise ValueError(
            f"model: log-probs of {type(model).__name__} differ by {difference:.3g} nats when sequences are packed; "
            "the learner supports decoder-only models with plain attention and a linear output layer"
        )


def _check_ties(model: PreTrainedModel) -> None:
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is model.get_input_embeddings().weight
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False) and not tied:
        raise ValueError(
            "model: config.json says tie_word_embeddings, but the output weights are not the embeddings; set it to "
            "false there if they are meant to differ"
        )


def _check_positions(model: PreTrainedModel, longest: int) -> None:
    """Of these kinds transformers chooses frequencies by the longest sequence of a batch, and vLLM once."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    for given in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if given.get("rope_type") not in ("longrope", "dynamic"):
            continue
        limit = given.get("original_max_position_embeddings") or config.max_position_embeddings
        if longest > limit:
            raise ValueError(
                f"model: its rotary positions ({given['rope_type']}) change beyond {limit} tokens; lower "
                f"task.maxPromptTokens + sampler.maxTokens ({longest}) to that, or use another model"
            )


def _own_logprobs(model: PreTrainedModel, problem: _Problem) -> Tensor:
    """Log-probs [n] of the response by the model's own forward pass."""
    ids = torch.tensor(problem.prompt_ids + problem.response_ids)
    logprobs = torch.log_softmax(model(input_ids=ids[None], use_cache=False).logits[0, :-1].float(), dim=-1)
    return logprobs.gather(-1, ids[1:, None])[len(problem.prompt_ids) - 1 :, 0]


def _assets(directory: Path, dtype: str) -> dict[str, bytes]:
    """Configuration, tokenizer and code of a model directory, with the number type of the published weights."""
    files = {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name.endswith(ASSETS) and not path.name.endswith(".index.json")
    }
    config = json.loads(files["config.json"])
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    files["config.json"] = json.dumps(config, indent=1, ensure_ascii=False).encode()
    return files
