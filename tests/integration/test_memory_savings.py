"""What saves memory changes no result: recomputed activations, and optimizer and parameters in host memory."""

import pytest
import torch
from ranks import run_ranks
from test_deepspeed_engine import sequences, train
from test_policy_module import packed_inputs
from tiny_model import tiny_model

from empg.api.learner import LearnerSpec
from empg.api.optimizer import OptimizerSpec
from empg_trainer.attention import PACKED
from empg_trainer.deepspeed_engine import Engine
from empg_trainer.distributed import initialise

pytestmark = pytest.mark.slow

OFFLOADS = [
    ("optimizer", 1, "float32"),
    ("optimizer", 2, "float32"),
    ("optimizer", 3, "float32"),
    ("optimizer-and-parameters", 3, "float32"),
    ("optimizer", 1, "bfloat16"),
    ("optimizer-and-parameters", 3, "bfloat16"),
]


def spec(stage, precision="float32", **changes):
    return LearnerSpec(zero_stage=stage, precision=precision, logprob_chunk_tokens=4, **changes)


def one_backward(checkpointing):
    """Loss, gradients, and how often the first layer's attention is computed in the forward and backward pass."""
    model = tiny_model(attn_implementation=PACKED)
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    learner = spec(0, activation_checkpointing=checkpointing)
    engine = Engine(model, learner, OptimizerSpec(), torch.device("cpu"))
    calls.clear()
    logprobs, _ = engine.forward(**packed_inputs(sequences()), temperature=1.0)
    loss = -logprobs.sum() / 60
    forward = len(calls)
    engine.backward(loss)
    gradients = {name: parameter.grad.clone() for name, parameter in engine.parameters.items()}
    return loss.item(), gradients, (forward, len(calls) - forward)


def both_backwards():
    initialise()
    return [one_backward(checkpointing) for checkpointing in (False, True)]


def test_checkpointed_activations_are_computed_again_to_the_same_gradients(tmp_path):
    ((plain, checkpointed),) = run_ranks(both_backwards, 1, tmp_path)
    assert plain[2] == (1, 0)
    assert checkpointed[2] == (1, 1)
    assert checkpointed[0] == pytest.approx(plain[0], abs=1e-5)
    assert any(gradient.abs().max() > 1e-3 for gradient in plain[1].values())
    for name, gradient in plain[1].items():
        torch.testing.assert_close(checkpointed[1][name], gradient, atol=1e-5, rtol=0, msg=name)


def train_with_checkpointing():
    return [train(spec(stage, activation_checkpointing=on)) for stage in (1, 3) for on in (False, True)]


def test_checkpointing_works_with_sharded_parameters(tmp_path):
    for found in run_ranks(train_with_checkpointing, 2, tmp_path):
        for plain, checkpointed in (found[:2], found[2:]):
            same(checkpointed, plain, 1e-5)


def train_with_offload():
    found = []
    for offload, stage, precision in OFFLOADS:
        found.append((train(spec(stage, precision)), train(spec(stage, precision, offload=offload))))
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_offloaded_optimizers_make_the_same_steps(tmp_path, world):
    for found in run_ranks(train_with_offload, world, tmp_path):
        for case, (kept, offloaded) in zip(OFFLOADS, found, strict=True):
            same(offloaded, kept, 1e-5 if case[2] == "float32" else 1e-2)


def same(found, wanted, tolerance):
    """Norms, losses and weights of two trainings."""
    assert wanted[1][0] > wanted[1][-1]
    assert found[0] == pytest.approx(wanted[0], rel=tolerance)
    assert found[1] == pytest.approx(wanted[1], rel=tolerance)
    for name, weight in wanted[2].items():
        torch.testing.assert_close(found[2][name], weight, atol=tolerance, rtol=0, msg=name)
