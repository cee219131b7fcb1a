"""The engine at every ZeRO stage with one and two ranks: the same losses, norms and weights."""

import pytest
import torch
from ranks import run_ranks
from test_policy_module import packed_inputs
from tiny_model import VOCABULARY, tiny_model

from empg.api.learner import LearnerSpec
from empg.api.optimizer import OptimizerSpec
from empg_trainer.attention import PACKED
from empg_trainer.deepspeed_engine import Engine, configuration
from empg_trainer.distributed import initialise
from empg_trainer.stop import Diverged

pytestmark = pytest.mark.slow


def sequences():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in (5, 23, 9, 3, 14, 11)]


def train(learner: LearnerSpec, tied=True, steps=3, poison=False):
    """Three steps on the same six sequences, dealt out to the ranks; returns norms, weights and the last loss."""
    device = initialise() if not torch.distributed.is_initialized() else torch.device("cpu")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    dtype = torch.bfloat16 if learner.precision == "bfloat16" else torch.float32
    model = tiny_model(tied, attn_implementation=PACKED).to(dtype)
    # Adam divides by the size of the gradient; a large epsilon keeps it from magnifying rounding where there is none.
    engine = Engine(model, learner, OptimizerSpec(gradient_clip=0.5, epsilon=1e-3), device)
    norms, losses = [], []
    # On two ranks the packs of one micro-batch have different numbers of chunks of four tokens.
    rows = sequences()
    packs = [rows[:1], rows[1:3], rows[3:]] if world == 1 else [[rows[:1], rows[1:2]], [rows[2:4], rows[4:]]][rank]
    for _ in range(steps):
        total = torch.zeros(())
        for pack in packs:
            logprobs, _ = engine.forward(**packed_inputs(pack), temperature=1.0)
            loss = -logprobs.sum() / 60
            if poison:
                loss = loss * float("nan")
            engine.backward(loss)
            total += loss.detach()
        torch.distributed.all_reduce(total)
        norms.append(engine.step(learning_rate=1e-2, weight_decay=0.1))
        losses.append(total.item())
    return norms, losses, snapshot(engine)


def snapshot(engine):
    from empg_trainer.state import full_weight

    return {name: full_weight(engine, name).clone() for name in engine.parameters}


def every_stage(precision, heads):
    """Results by ZeRO stage and by whether the head is tied to the embeddings."""
    stages = range(4) if precision == "float32" else range(1, 4)
    return {
        (stage, tied): train(LearnerSpec(zero_stage=stage, precision=precision, logprob_chunk_tokens=4), tied)
        for stage in stages
        for tied in heads
    }


def test_stages_and_ranks_agree_in_float32(tmp_path):
    """Includes unequal numbers of chunks on two ranks at ZeRO 3, which would hang if chunks were module calls."""
    (one,) = run_ranks(every_stage, 1, tmp_path, "float32", (True, False))
    two = run_ranks(every_stage, 2, tmp_path, "float32", (True, False))[0]
    for (stage, tied), found in [*one.items(), *two.items()]:
        norms, losses, weights = one[0, tied]
        assert losses[0] > losses[1] > losses[2]
        assert found[0] == pytest.approx(norms, abs=1e-6, rel=1e-6), stage
        assert found[1] == pytest.approx(losses, abs=1e-6, rel=1e-6), stage
        for name, weight in found[2].items():
            torch.testing.assert_close(weight, weights[name], atol=1e-6, rtol=0, msg=f"stage {stage}: {name}")


def test_bfloat16_keeps_float32_master_weights(tmp_path):
    (one,) = run_ranks(every_stage, 1, tmp_path, "bfloat16", (True,))
    for _, losses, weights in one.values():
        assert losses[0] > losses[2]
        assert all(weight.dtype is torch.float32 for weight in weights.values())
        assert any((weight != weight.bfloat16().float()).any() for weight in weights.values())
        assert losses == pytest.approx(one[1, True][1], rel=1e-2)


def poison_every_stage():
    codes = {}
    for precision, stages in (("float32", range(4)), ("bfloat16", range(1, 4))):
        for stage in stages:
            try:
                train(LearnerSpec(zero_stage=stage, precision=precision), poison=True)
            except Diverged as stop:
                codes[precision, stage] = stop.code
    return codes


def test_a_gradient_that_is_not_finite_ends_with_diverged(tmp_path):
    (found,) = run_ranks(poison_every_stage, 1, tmp_path)
    assert set(found.values()) == {65}
    assert len(found) == 7


def test_bfloat16_without_zero_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"learner\.zeroStage: 1 or learner\.precision: float32"):
        configuration(LearnerSpec(zero_stage=0), OptimizerSpec())
