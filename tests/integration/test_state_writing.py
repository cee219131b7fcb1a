"""Training states are written while training goes on: what is seen of them meanwhile, and when writing fails."""

import threading

import pytest
import torch
from learner_runs import Directory
from ranks import run_ranks
from test_policy_module import packed_inputs, sequences

from empg.api.load import load_run
from empg.exit_codes import RETRY
from empg.rundir import keys
from empg.rundir.group import policies, states
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import LearnerOwner
from empg.store.base import StorageFull
from empg.store.posix import PosixStore
from empg_trainer.background import settle
from empg_trainer.distributed import Ranks, initialise
from empg_trainer.every_rank import Origin
from empg_trainer.import_model import import_model
from empg_trainer.shards import read_tensors
from empg_trainer.state import full_weight, read_state
from empg_trainer.stop import Stop
from empg_trainer.trainer import Trainer

pytestmark = pytest.mark.slow


class SlowVolume(PosixStore):
    """Takes nothing of a training state before it is let, and has only so much room for it, and for policies."""

    def __init__(self, root, files=100):
        super().__init__(root)
        self.let = threading.Event()
        self.files = files
        self.takes_policies = True

    def put(self, key, data):
        if key.startswith(keys.STATES):
            assert self.let.wait(60)
            self.files -= 1
            if self.files < 0:
                raise StorageFull(key, "No space left on device")
        if key.startswith(keys.POLICIES) and not self.takes_policies:
            raise StorageFull(key, "No space left on device")
        super().put(key, data)


def trainer_on(store, base_dir):
    device = initialise() if not torch.distributed.is_initialized() else torch.device("cpu")
    spec, owner = load_run(base_dir / "manifest.json").spec, None
    if torch.distributed.get_rank() == 0:
        prepare(store, Identity(uid="u", name="n", spec_digest="d"))
        owner = LearnerOwner.acquire(store, "test")
        import_model(store, owner, spec.model, base_dir, spec.model_length)
    torch.distributed.barrier()
    return Trainer(store, spec, device, Origin(policy=0, state=None), owner)


def step(trainer):
    logprobs, _ = trainer.engine.forward(**packed_inputs(sequences()), temperature=1.0)
    trainer.engine.backward(-logprobs.sum() / 30)
    trainer.engine.step(learning_rate=1e-2, weight_decay=0.0)


def save(trainer, iteration):
    trainer.copy_state(iteration)
    trainer.write_state()


def weights(trainer):
    return {name: full_weight(trainer.engine, name).clone() for name in trainer.engine.parameters}


def save_slowly(root):
    store = SlowVolume(root)
    trainer = trainer_on(store, root)
    step(trainer)
    saved = weights(trainer)
    save(trainer, 1)
    step(trainer)
    trainer.publish(2)
    before = states(store)
    store.let.set()
    save(trainer, 2)  # Waits for the other.
    between = states(store)
    trainer.settle()
    found = [dict(read_tensors(store, keys.state_prefix(n), read_state(store, n), "weight-")) for n in (1, 2)]
    return before, between, states(store), [saved, weights(trainer)], found


def test_a_state_holds_what_was_when_it_was_asked_for_and_appears_whole(tmp_path):
    ((before, between, after, wanted, found),) = run_ranks(save_slowly, 1, tmp_path, Directory(tmp_path).root)
    assert before == []
    assert between[:1] == [1]
    assert after == [1, 2]
    for state, expected in zip(found, wanted, strict=True):
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in state)
    assert any((wanted[0][name] != wanted[1][name]).any() for name in wanted[0])


def save_in_too_little_room(root):
    raised = []
    for boundary in (Trainer.settle, lambda trainer: trainer.publish(1), lambda trainer: trainer.copy_state(2)):
        store = SlowVolume(root, files=1)
        store.let.set()
        trainer = trainer_on(store, root)
        save(trainer, 1)
        settle()
        assert trainer.trouble is None
        boundary(trainer)
        if isinstance(trainer.trouble, StorageFull):
            raised.append(str(trainer.trouble))
    return raised, states(store)


def publish_without_room(root):
    store = SlowVolume(root)
    trainer = trainer_on(store, root)
    store.takes_policies = False
    trainer.publish(1)

    def tell():
        raise trainer.trouble

    try:
        Ranks().lead(tell)
    except (StorageFull, Stop) as error:
        return type(error), getattr(error, "code", None), str(error), policies(store)


def test_every_rank_hears_that_there_is_no_room_for_a_policy(tmp_path):
    """At ZeRO 3, where all of them have parts of what can't be written."""
    root = Directory(tmp_path, learner={"zeroStage": 3}).root
    ends = run_ranks(publish_without_room, 2, tmp_path, root)
    assert [end[:2] for end in ends] == [(StorageFull, None), (Stop, RETRY)]
    assert all("No space left on device" in said and found == [0] for _, _, said, found in ends)


def test_a_state_that_cannot_be_written_stops_the_learner_at_the_next_boundary(tmp_path):
    ((raised, found),) = run_ranks(save_in_too_little_room, 1, tmp_path, Directory(tmp_path).root)
    assert len(raised) == 3
    assert all("No space left" in reason for reason in raised)
    assert found == []
