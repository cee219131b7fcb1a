"""ZeRO 3 from the first moment: what a rank holds of a model, and that it computes the same."""

import os
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from test_deepspeed_engine import sequences
from test_policy_module import packed_inputs
from tiny_model import save_tiny_model, tiny_model

from empg.api.learner import LearnerSpec
from empg_trainer.deepspeed_engine import DTYPES, holding
from empg_trainer.distributed import initialise
from empg_trainer.models import load_directory
from empg_trainer.partition import partition, whole, whole_shape
from empg_trainer.reference import Reference

pytestmark = pytest.mark.slow


def private_bytes():
    """Memory of this process that is neither shared nor mapped from a file."""
    rollup = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous"))


def load_large(path):
    """Private bytes that a rank needed more than before, and bytes of the whole model."""
    import deepspeed  # noqa: F401 - takes room itself

    device = initialise()
    before = private_bytes()
    model = load_directory(str(path), torch.bfloat16, trust_remote_code=False)
    size = sum(parameter.nbytes for parameter in model.parameters())
    partition(model, holding(LearnerSpec(zero_stage=3)), device)
    assert all(parameter.numel() == 0 for parameter in model.parameters())
    return private_bytes() - before, size


def test_no_rank_holds_a_model_whole(tmp_path):
    large = {"vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4}
    tiny_model(False, **large).to(torch.bfloat16).save_pretrained(tmp_path / "large")
    for private, size in run_ranks(load_large, 2, tmp_path, tmp_path / "large"):
        assert size > 100e6
        assert 0.4 * size < private < 0.65 * size


def compare(path):
    """What differs between a partitioned model and a whole one, by number type."""
    device = initialise()
    different = {}
    for precision, dtype in DTYPES.items():
        learner = LearnerSpec(zero_stage=3, precision=precision)
        model, reference = (load_directory(str(path), dtype, trust_remote_code=False) for _ in range(2))
        partition(model, holding(learner), device)
        names = []
        for (name, mine), other in zip(model.named_parameters(), reference.parameters(), strict=True):
            assert whole_shape(mine) == other.shape
            with whole(mine):
                names += [] if torch.equal(mine, other) else [name]
        for (name, mine), other in zip(model.named_buffers(), reference.buffers(), strict=True):
            names += [] if mine.dtype == other.dtype and torch.equal(mine, other) else [name]
        inputs = packed_inputs(sequences()[torch.distributed.get_rank() :: 2])
        with torch.no_grad():
            found, _ = Reference(model, learner, device).forward(**inputs, temperature=1.0)
            wanted, _ = Reference(reference, LearnerSpec(zero_stage=2), device).forward(**inputs, temperature=1.0)
        names += [] if torch.equal(found, wanted) else ["log-probs"]
        different[precision] = names
    return different


def test_a_partitioned_model_is_the_same_model(tmp_path):
    save_tiny_model(tmp_path / "model")
    for different in run_ranks(compare, 2, tmp_path, tmp_path / "model"):
        assert different == {"float32": [], "bfloat16": []}
