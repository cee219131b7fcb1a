"""The learner: E-steps are planned and awaited, M-steps made, policies published, until the run is complete.

Every rank runs `learn`. Rank 0 alone reads the manifest, waits for samplers and writes; the others learn from it by
broadcast what to do.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from empg.api.run import RunSpec
from empg.hub import HubAway
from empg.rundir import keys
from empg.rundir.group import newest_policy, states
from empg.rundir.owner import LearnerOwner
from empg.rundir.prepare import prepare_directory
from empg.rundir.probe import probe
from empg.store.base import Store
from empg.tasks.snapshot import open_task
from empg.tasks.source import Task
from empg_trainer.distributed import Ranks
from empg_trainer.every_rank import EveryRank, Origin
from empg_trainer.import_model import import_model
from empg_trainer.leader import Leader
from empg_trainer.models import load_tokenizer
from empg_trainer.start import Start
from empg_trainer.stop import BadSpec, Stop
from empg_trainer.trainer import Trainer

logger = logging.getLogger(__name__)


def learn(start: Start, ranks: Ranks, device: torch.device) -> None:
    """Train until the run is complete: from its beginning, or from where an earlier learner left it.

    An earlier learner's M-steps since its newest training state are repeated on their sealed data. Their policies stay
    as they were published.

    Raises:
        Stop: the run can't go on, or not now; says why and with which exit code.
        Fenced: another learner took over. On rank 0 alone, as the next; the other ranks raise Stop.
        StorageFull: there was no room for what rank 0 has to write.
    """
    everyone = EveryRank(ranks, lambda: appoint(start), start.run.spec)
    iteration = everyone.origin.state or 0
    spec = everyone.begin(iteration)  # Samplers have work while we load the model.
    trainer = Trainer(start.store, everyone.spec, device, everyone.origin, everyone.owner, start.samplers_sleep)
    while iteration < spec.em.iterations:
        began = time.monotonic()
        rows, sampled = everyone.sample(iteration)

        learning = time.monotonic()
        result, learning_rate = trainer.train(spec, rows, sampled)
        publishing = time.monotonic()
        everyone.judge(result, learning_rate, publishing - learning)
        diverged = trainer.publish(iteration + 1)
        saving = time.monotonic()
        if (iteration + 1) % spec.retention.state_every == 0 or iteration + 1 == spec.em.iterations:
            trainer.copy_state(iteration + 1)
        everyone.check(trainer.trouble)
        ended = time.monotonic()
        seconds = {
            "seconds_publishing": saving - publishing,
            "seconds_state": ended - saving,
            "seconds_total": ended - began,
        }
        everyone.finish(iteration, diverged, seconds)
        trainer.write_state()  # Last: who starts from it does not come back to record this iteration.
        iteration += 1
        if start.alternate:
            trainer.settle()  # We may end here, and then go on from this state.
            everyone.check(trainer.trouble)
        spec = everyone.begin(iteration)
    trainer.settle()
    everyone.check(trainer.trouble)
    everyone.complete(iteration)


def appoint(start: Start) -> tuple[Leader, Origin]:
    """Take the run directory over and bring model and task into it.

    Raises:
        BadSpec: the manifest can't be trained.
        Stop: the hub is away (exit code 75).
    """
    spec, store = start.run.spec, start.store
    try:
        for warning in probe(store.local(keys.RUN).parent).warnings():
            logger.warning("%s", warning)
        identity = prepare_directory(store, start.run)
        owner = LearnerOwner.acquire(store, start.name)
        if newest_policy(store) is None:
            import_model(store, owner, spec.model, start.base_dir, spec.model_length)
        task = load_task(store, owner, spec, start.base_dir)
    except ValueError as error:
        raise BadSpec(str(error)) from error
    except HubAway as error:
        raise Stop(str(error)) from error
    leader = Leader(start, owner, identity, task)
    state = max(states(store), default=None)
    newest = newest_policy(store)
    assert newest is not None, "the base model is policy 0"
    leader.report("starting", state or 0)
    return leader, Origin(policy=0 if state is None else newest, state=state)


def load_task(store: Store, owner: LearnerOwner, spec: RunSpec, base_dir: Path) -> Task:
    """The run's task, encoded with the tokenizer of its policies."""
    version = newest_policy(store)
    assert version is not None, "the base model is policy 0"
    tokenizer = load_tokenizer(store, version, spec.model.trust_remote_code)

    def encode(text: str) -> list[int]:
        # A chat template writes its special tokens itself.
        ids: list[int] = tokenizer(text, add_special_tokens=not spec.task.chat)["input_ids"]
        return ids

    def chat(messages: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    return open_task(
        store,
        owner,
        spec.task,
        seed=spec.em.seed,
        heldout=spec.evaluation.prompts,
        base_dir=base_dir,
        encode=encode,
        chat=chat if tokenizer.chat_template else None,
    )
