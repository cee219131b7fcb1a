"""What the learner was started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from empg.api.run import EMPGRun
from empg.cluster.reporter import StatusReporter
from empg.store.base import Store


@dataclass(frozen=True)
class Start:
    """Command line and manifest."""

    store: Store
    run: EMPGRun
    spec_file: Path
    """The manifest, read again at every iteration."""
    base_dir: Path
    """Directory that relative paths of the manifest are relative to."""
    name: str
    """Of this process, for people."""
    samplers_sleep: bool = False
    """Whether samplers share our GPU, so that we train while they sleep."""
    alternate: bool = False
    """Whether samplers run on our GPUs while we do not, so that we end where they have to work first."""
    metrics_port: int = 0
    """Port of rank 0's endpoint; 0: none."""
    attempt: int = 0
    """Number of this attempt for reports; 0: the owner's number."""
    reporter: StatusReporter | None = None
    """Where to report, on rank 0."""
