"""Loading policies from the run directory."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from empg.rundir import keys
from empg.rundir.group import CorruptGroup, Manifest, group_dir, read_file, read_manifest
from empg.store.base import Store
from empg_trainer.attention import PACKED

disable_progress_bar()  # A bar per load would fill the logs.


def policy_manifest(store: Store, version: int) -> Manifest:
    """Manifest of a published policy. CorruptGroup if it has none."""
    manifest = read_manifest(store, keys.policy_prefix(version))
    if manifest is None:
        raise CorruptGroup(keys.policy_prefix(version), "has no manifest (yet)")
    return manifest


def load_policy(store: Store, version: int, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """A published policy with packed attention, on the CPU. Every file is verified first."""
    manifest = policy_manifest(store, version)
    for name in manifest.files:
        read_file(store, keys.policy_prefix(version), manifest, name)
    directory = group_dir(store, keys.policy_prefix(version), manifest)
    return load_directory(str(directory), dtype, trust_remote_code)


def load_directory(directory: str, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """A model in Hugging Face layout, with packed attention, on the CPU.

    ValueError when the directory lacks weights, which transformers would make up.
    """
    loaded: tuple[PreTrainedModel, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype,
        attn_implementation=PACKED,
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        output_loading_info=True,
    )
    model, info = loaded
    if lacking := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise ValueError(f"weights are absent or of another shape: {', '.join(map(str, sorted(lacking)[:5]))}")
    return model


def load_tokenizer(store: Store, version: int, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer that was published with a policy."""
    directory = group_dir(store, keys.policy_prefix(version), policy_manifest(store, version))
    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(directory), trust_remote_code=trust_remote_code, local_files_only=True
    )
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded
