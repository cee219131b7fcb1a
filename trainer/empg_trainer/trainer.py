"""What every rank holds and does: the engine, the reference model, and their files in the run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from empg.api.run import RunSpec
from empg.rundir import keys
from empg.rundir.group import Manifest, publish_policy, publish_state, read_manifest
from empg.rundir.owner import Fenced, LearnerOwner
from empg.store.base import StorageFull, Store
from empg.trajectory import Trajectory
from empg_trainer.background import in_background
from empg_trainer.deepspeed_engine import DTYPES, Engine, holding
from empg_trainer.every_rank import Origin
from empg_trainer.models import load_policy
from empg_trainer.partition import partition
from empg_trainer.publish import differs, policy_files, read_assets, trained_weights
from empg_trainer.reference import Reference
from empg_trainer.schedule import learning_rate
from empg_trainer.state import load_weights, restore, snapshot
from empg_trainer.step import MStep, Sampled, StepResult
from empg_trainer.stop import Stop

VISIBLE_SECONDS = 180.0
"""Longest wait until a rank on another node sees a file that rank 0 wrote; NFS may take a minute."""


class Trainer:
    """The policy in training. All methods are collective operations: every rank calls them in the same order."""

    def __init__(
        self,
        store: Store,
        spec: RunSpec,
        device: torch.device,
        origin: Origin,
        owner: LearnerOwner | None,
        shares_device: bool = False,
    ) -> None:
        """Load what `origin` says. `owner` is rank 0's; it alone writes. `shares_device`: leave room on the GPU.

        What is read from `spec` here holds until the learner starts again.
        """
        policy, state = origin.policy, origin.state
        self._store = store
        self._owner = owner
        self._shares_device = shares_device
        self._device = device
        self._learner = spec.learner
        self._model_spec = spec.model
        model = self._load(policy)
        if state is not None:
            _await(store, keys.state_prefix(state))
            load_weights(model, store, state)
        self.engine = Engine(model, spec.learner, spec.optimizer, device)
        if state is not None:
            restore(self.engine, store, state)
        self._assets = read_assets(store, policy) if owner else {}
        self._reference: Reference | None = None
        self.trouble: Fenced | StorageFull | None = None
        """What kept rank 0 from writing. It ends the learner, once the other ranks have heard of it."""
        self._write: Callable[[], object] | None = None
        self._saving: Future[object] | None = None

    def train(self, spec: RunSpec, rows: Sequence[Trajectory], sampled: Sampled) -> tuple[StepResult, float]:
        """The M-step of an iteration; returns what it did and its learning rate."""
        rate = learning_rate(spec.optimizer, sampled.iteration, spec.em.iterations)
        step = MStep(self.engine, spec, rows, sampled, self._learner.tokens_per_micro_batch)
        needed = spec.objective.resolve().needs_reference
        result = step.run(rate, self._reference_forward if needed else None)
        self._leave_room()
        return result, rate

    def publish(self, version: int) -> bool:
        """Publish the weights as policy `version`. Returns whether it was there already with other content.

        A published policy is never replaced: samplers may have used it.
        """
        if self._saving is not None and self._saving.done():
            self.settle()
        dtype = DTYPES[self._model_spec.dtype]
        engine, owner = self.engine, self._owner
        weights = trained_weights(engine, dtype)
        files = policy_files(engine.model, weights, engine.shapes, dtype, self._assets, write=owner is not None)
        if owner is None or self.trouble is not None:  # on a full volume each write waits a minute for room
            _exhaust(files)
            return False
        published = read_manifest(self._store, keys.policy_prefix(version))
        if published is not None:
            return differs(published.files, files)
        try:
            publish_policy(self._store, owner, version, files, {"iteration": version - 1})
        except (Fenced, StorageFull) as error:
            self.trouble = error
        _exhaust(files)  # The other ranks give their parts of what was not read.
        return False

    def copy_state(self, iteration: int) -> None:
        """Copy the training state with which `iteration` starts, unless there is one.

        One copy exists at a time: this waits for the writing of the one before.
        """
        self.settle()
        owner = self._owner
        wanted = (
            owner is not None
            and self.trouble is None
            and read_manifest(self._store, keys.state_prefix(iteration)) is None
        )
        copy = snapshot(self.engine, keep=wanted)
        self._leave_room()
        if owner is not None and wanted:
            self._write = lambda: publish_state(self._store, owner, iteration, copy.files(), copy.meta)

    def write_state(self) -> None:
        """Have the copy written, if there is one, while training goes on."""
        if self._write is not None:
            self._saving = in_background(self._write)
            self._write = None

    def settle(self) -> None:
        """Wait until the last state is written."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            try:
                saving.result()
            except (Fenced, StorageFull) as error:
                self.trouble = error

    def _leave_room(self) -> None:
        """Give memory that is only kept for later back to the GPU: samplers on it wake up when a policy is there."""
        if self._shares_device and self.engine.device.type == "cuda":
            torch.cuda.empty_cache()

    def _load(self, version: int) -> PreTrainedModel:
        """A published policy, of which at ZeRO 3 each rank has its share."""
        _await(self._store, keys.policy_prefix(version))
        precision = DTYPES[self._learner.precision]
        model = load_policy(self._store, version, precision, self._model_spec.trust_remote_code)
        if self._learner.zero_stage == 3:
            partition(model, holding(self._learner), self._device)
        return model

    def _reference_forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Forward pass of policy 0, which is loaded when it is first needed and then stays on the device."""
        if self._reference is None:
            self._reference = Reference(self._load(0), self._learner, self._device)
        return self._reference.forward(**inputs)


def _exhaust(files: Iterator[Any]) -> None:
    for _ in files:
        pass


def _await(store: Store, prefix: str, clock: Callable[[], float] = time.monotonic) -> Manifest:
    """The manifest of a group that rank 0 has seen. Stop if this rank can't see it in time."""
    deadline = clock() + VISIBLE_SECONDS
    while (manifest := read_manifest(store, prefix)) is None:
        if clock() > deadline:
            raise Stop(f"{prefix} is not visible on this node after {VISIBLE_SECONDS:g} s; mount NFS with actimeo=1")
        time.sleep(0.2)
    return manifest
