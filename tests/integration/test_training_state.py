"""Training states: resumed bitwise at every ZeRO stage with one and three ranks, and with another number of ranks."""

import pytest
import torch
from ranks import run_ranks
from test_deepspeed_engine import sequences
from test_policy_module import packed_inputs
from tiny_model import tiny_model

from empg.api.learner import LearnerSpec
from empg.api.optimizer import OptimizerSpec
from empg.rundir.group import CorruptGroup, publish_state
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import LearnerOwner
from empg.store.posix import PosixStore
from empg_trainer.attention import PACKED
from empg_trainer.deepspeed_engine import DTYPES, Engine, holding
from empg_trainer.distributed import initialise
from empg_trainer.partition import partition
from empg_trainer.state import MOMENTS, full_moment, full_weight, load_weights, restore, snapshot

pytestmark = pytest.mark.slow

CASES = [
    (0, "float32", "none"),
    *((stage, precision, "none") for stage in (1, 2, 3) for precision in ("float32", "bfloat16")),
    (2, "bfloat16", "optimizer"),
    (3, "float32", "optimizer-and-parameters"),
]


def engine(stage, precision, offload, store=None):
    """A new engine, or one that goes on from the state before iteration 2."""
    model = tiny_model(attn_implementation=PACKED).to(DTYPES[precision])
    learner = LearnerSpec(zero_stage=stage, precision=precision, offload=offload)
    if stage == 3:
        partition(model, holding(learner), torch.device("cpu"))
    if store:
        load_weights(model, store, 2)
    made = Engine(model, learner, OptimizerSpec(), torch.device("cpu"))
    if store:
        restore(made, store, 2)
    return made


def train(engine, steps):
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for _ in range(steps):
        logprobs, _ = engine.forward(**packed_inputs(sequences()[rank::world]), temperature=1.0)
        engine.backward(-logprobs.sum() / 60)
        engine.step(learning_rate=1e-2, weight_decay=0.1)


def contents(engine):
    parts = {f"{name} weight": full_weight(engine, name).clone() for name in engine.parameters}
    for moment in MOMENTS:
        parts |= {f"{name} {moment}": full_moment(engine, name, moment).clone() for name in engine.parameters}
    return parts, engine.steps


def directory(root, case):
    return PosixStore(root / "-".join(map(str, case)))


def save_and_go_on(root):
    """Two steps, a state, two more steps; in another engine the state and the same two steps. Both contents by case.

    The state is copied before the two more steps and written after them.
    """
    initialise()
    found = {}
    for case in CASES:
        store = directory(root, case)
        first = engine(*case)
        train(first, 2)
        copy = snapshot(first, keep=torch.distributed.get_rank() == 0)
        train(first, 2)
        if torch.distributed.get_rank() == 0:
            prepare(store, Identity(uid="u", name="n", spec_digest="d"))
            publish_state(store, LearnerOwner.acquire(store, "test"), 2, copy.files(), copy.meta)
        else:
            assert copy.shards == []
        torch.distributed.barrier()
        second = engine(*case, store)
        train(second, 2)
        found[case] = contents(first), contents(second)
    return found


def go_on_alone(root):
    initialise()
    resumed = engine(1, "float32", "none", directory(root, (3, "float32", "none")))
    train(resumed, 2)
    return contents(resumed)


def test_a_state_resumes_bitwise_and_with_other_ranks(tmp_path):
    for world in (1, 3):  # three divide no parameter of the model, so that shares are padded
        root = tmp_path / str(world)
        root.mkdir()
        for found in run_ranks(save_and_go_on, world, root, root):
            for case, ((undisturbed, steps), (resumed, resumed_steps)) in found.items():
                assert steps == resumed_steps == 4
                for name, tensor in undisturbed.items():
                    assert torch.equal(tensor, resumed[name]), (world, case, name)
    ((resumed, steps),) = run_ranks(go_on_alone, 1, tmp_path, root)
    assert steps == 4
    for name, tensor in found[3, "float32", "none"][0][0].items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-5, rtol=0, msg=name)


def test_a_state_of_another_model_is_refused(tmp_path):
    run_ranks(save_one, 1, tmp_path, tmp_path)
    with pytest.raises(CorruptGroup, match="which the model does not have"):
        load_weights(tiny_model(hidden_size=16), directory(tmp_path, CASES[0]), 2)
    with pytest.raises(CorruptGroup, match="has no manifest"):
        load_weights(tiny_model(), directory(tmp_path, CASES[0]), 3)


def save_one(root):
    initialise()
    store = directory(root, CASES[0])
    prepare(store, Identity(uid="u", name="n", spec_digest="d"))
    made = engine(*CASES[0])
    copy = snapshot(made, keep=True)
    publish_state(store, LearnerOwner.acquire(store, "test"), 2, copy.files(), copy.meta)
