"""Learner pods: an Indexed Job per attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empg import exit_codes
from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.container import container, metrics_port, run_variables
from empg_operator.builders.metadata import metadata, queue_labels
from empg_operator.builders.pod import extended, pod_template
from empg_operator.builders.storage import parent, run_directory
from empg_operator.builders.volumes import required, scratch
from empg_operator.settings import Settings

GRACE_SECONDS = 120
"""To finish what is being written after SIGTERM."""

FAILURE_RULES: tuple[int | None, ...] = (
    exit_codes.SPEC,
    exit_codes.DIVERGED,
    None,
    exit_codes.RETRY,
    exit_codes.WAITING,
)
"""Exit code of each rule of the Job's podFailurePolicy, None: a disruption. The condition of a failed Job names the
index of the rule that matched; where none did, a pod crashed, or its node refused it."""

DO_NOT_DISRUPT = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations for those who would move a learner to save a node; all learner pods would start again."""


def learner_pod_template(run: EMPGRun, settings: Settings, lineage: Lineage | None) -> dict[str, Any]:
    """Pod template of the learner, without what differs between attempts.

    ValueError names the part of `spec.learner.podTemplate` that can't be used, and the remedy.
    """
    learner = run.spec.learner
    port = metrics_port(learner.metrics_port)
    volumes, room = required(run, parent(run, lineage)), scratch()
    built = container(
        "learner",
        settings,
        image=learner.image or settings.learner_image,
        command=("empg-learner",),
        arguments=(
            run_directory(run),
            *("--spec", names.SPEC_FILE),
            *("--base-dir", names.MOUNT),
            # Not from the file, which shows edits before the next attempt is made of them.
            *("--processes", str(learner.processes)),
            *("--metrics-port", str(port)),
            "--report",
            *(("--alternate",) if run.spec.sampler.roll_strategy == "Alternate" else ()),
        ),
        environment={**run_variables(run), "MASTER_PORT": str(names.MASTER_PORT)},
        accelerator=learner.accelerator,
        devices=learner.processes,
        port=port,
        volumes=(*volumes, *room),
    )
    return pod_template(
        run,
        "learner",
        settings,
        built,
        required=volumes,
        scratch=room,
        threads_shared_by=learner.processes,
        annotations=DO_NOT_DISRUPT,
        automountServiceAccountToken=True,
        terminationGracePeriodSeconds=GRACE_SECONDS,
        restartPolicy="Never",
        # With the Job's hostnames it makes the name that MASTER_ADDR is.
        subdomain=names.learner_service(run.metadata.name),
    )


def learner_job(run: EMPGRun, template: Mapping[str, Any], attempt: int, revision: str) -> dict[str, Any]:
    """Job of one attempt.

    It ends with the first pod that fails, and the operator starts the next attempt: a gang starts again as a gang.
    `suspend` is Kueue's, and `ttlSecondsAfterFinished` would remove the Job before its end was judged; both stay
    unset.

    Args:
        run: whose learner it is.
        template: frozen pod template, as `learner_pod_template` built it.
        attempt: number of the attempt.
        revision: name of the ControllerRevision that holds the template.
    """
    name, nodes = names.learner_job(run.metadata.name, attempt), run.spec.learner.nodes
    labels = names.job_labels(run.metadata.name, attempt) | {names.REVISION_LABEL: revision}
    pods = extended(
        template,
        "learner",
        arguments=("--nodes", str(nodes), "--attempt", str(attempt)),
        environment={"MASTER_ADDR": f"{name}-0.{names.learner_service(run.metadata.name)}"},
    )
    pods["metadata"]["labels"] |= labels
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(run, name, "learner", labels=labels | queue_labels(run)),
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
            "podFailurePolicy": {"rules": [_rule(code) for code in FAILURE_RULES]},
            "template": pods,
        },
    }


def _rule(code: int | None) -> dict[str, Any]:
    if code is None:
        return {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"action": "FailJob", "onExitCodes": {"containerName": "learner", "operator": "In", "values": [code]}}
