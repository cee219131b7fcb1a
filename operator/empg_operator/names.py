"""Names, labels and annotations of everything that belongs to a run. All follow from the run's name."""

from __future__ import annotations

from typing import Literal

GROUP = "empg.dev"
VERSION = "v1alpha1"
PLURAL = "empgruns"
FIELD_MANAGER = "empg-operator"

Role = Literal["sampler", "learner"]

RUN_LABEL = f"{GROUP}/run"
ROLE_LABEL = f"{GROUP}/role"
ATTEMPT_LABEL = f"{GROUP}/attempt"
REVISION_LABEL = f"{GROUP}/revision"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
POLICY_ANNOTATION = f"{GROUP}/policy"

SELECTOR = RUN_LABEL
"""Label selector of everything that the operator makes: a label of our own, as others rewrite the common ones."""

METRICS_PORT = 9464
"""Port of metrics and probes where the spec names none."""
MASTER_PORT = 29400
"""Port of the learner's rendezvous."""

MOUNT = "/var/lib/empg"
"""Where the claim is mounted; the run directory is the directory of the run's name below."""
PARENT_MOUNT = "/var/lib/empg-parent"
"""Where the claim of `model.fromRun` is mounted, if it is another one."""
SPEC_DIR = "/etc/empg"
"""Where the ConfigMap is mounted."""
SPEC_FILE = f"{SPEC_DIR}/run.json"


def labels(run: str, role: Role | None = None) -> dict[str, str]:
    """Labels of a child; the ones that select the pods of a role are among them."""
    common = {
        "app.kubernetes.io/name": "empg",
        "app.kubernetes.io/instance": run,
        MANAGED_BY_LABEL: FIELD_MANAGER,
        RUN_LABEL: run,
    }
    return common | ({ROLE_LABEL: role, "app.kubernetes.io/component": role} if role else {})


def job_labels(run: str, attempt: int) -> dict[str, str]:
    """Labels by which the Job of an attempt is known."""
    return labels(run, "learner") | {ATTEMPT_LABEL: str(attempt)}


def selector(run: str, role: Role) -> dict[str, str]:
    """Labels that select the pods of a role."""
    return {RUN_LABEL: run, ROLE_LABEL: role}


def learner_job(run: str, attempt: int) -> str:
    return f"{run}-learner-{attempt}"


def learner_service(run: str) -> str:
    return f"{run}-learner"


def sampler_deployment(run: str) -> str:
    return f"{run}-sampler"


def service_account(run: str, role: Role) -> str:
    """Also the name of its Role and RoleBinding."""
    return f"{run}-{role}"


def config_map(run: str) -> str:
    return f"{run}-run"


def claim(run: str) -> str:
    """Claim that is made where the spec names none."""
    return f"{run}-data"


def revision(run: str, role: Role, digest: str) -> str:
    """ControllerRevision of a frozen pod template."""
    return f"{run}-{role}-{digest[:8]}"
