"""What an edit of each field of the spec does to a run that goes on."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from plan_samples import NAME, Steps, merged, progress

from empg.api.base import Spec
from empg.api.run import RunSpec
from empg_operator import names
from empg_operator.plan.situation import survey
from empg_operator.revisions import template_digest

GRPO = {"objective": {"preset": "grpo"}}

EDITS: dict[str, list[tuple[str, Any, dict[str, Any]]]] = {
    "live": [
        ("task.grader.name", "exact", {}),
        (
            "task.grader.function",
            "package.module:other",
            {"task": {"grader": {"name": "function", "function": "a.b:c"}}},
        ),
        ("task.grader.tolerance", 1e-3, {}),
        ("task.grader.timeoutSeconds", 9.0, {}),
        ("task.grader.memoryMib", 512, {}),
        ("task.grader.maxAnswerChars", 99, {}),
        ("task.grader.workers", 3, {}),
        ("em.iterations", 5, {}),
        ("em.promptsPerIteration", 64, {}),
        ("em.samplesPerPrompt", 4, {}),
        ("em.promptsPerUnit", 4, {}),
        ("em.maxStaleness", 1, {}),
        ("em.unitAttempts", 5, {}),
        ("objective.rewardMap", "identity", {}),
        ("objective.baseline", "leave-one-out", {}),
        ("objective.scale", "group-std", {"objective": {"baseline": "group-mean"}}),
        ("objective.scaleEpsilon", 1e-3, {"objective": {"baseline": "group-mean", "scale": "group-std"}}),
        ("objective.squash", "positive-part", {}),
        ("objective.filters", ["all-right"], {}),
        ("objective.rightReward", 0.5, {"objective": {"filters": ["all-right"]}}),
        ("objective.wrongReward", 0.1, {"objective": {"filters": ["all-wrong"]}}),
        ("objective.minAdvantage", 0.1, {"objective": {"filters": ["small-advantage"]}}),
        ("objective.surrogate", "ratio-clip", {}),
        ("objective.ratioLevel", "sequence", GRPO),
        ("objective.clipLow", 0.1, GRPO),
        ("objective.clipHigh", 0.3, GRPO),
        ("objective.dualClip", 3.0, GRPO),
        ("objective.aggregate", "seq-mean-token-sum", {}),
        ("objective.denominator", "kept", {"objective": {"filters": ["all-right"]}}),
        ("objective.klEstimator", "k2", {"objective": {"kl": "loss"}}),
        ("objective.klBeta", 0.1, {"objective": {"kl": "loss"}}),
        ("objective.epochs", 2, {}),
        ("objective.minibatches", 2, {}),
        ("objective.oldLogprobs", "behaviour", GRPO),
        ("objective.isCorrection", "truncated", {}),
        ("objective.isCap", 3.0, {"objective": {"isCorrection": "truncated"}}),
        ("objective.entropyCoef", 0.01, {}),
        ("optimizer.learningRate", 2e-6, {}),
        ("optimizer.schedule", "cosine", {}),
        ("optimizer.warmupIterations", 2, {}),
        ("optimizer.minLearningRateRatio", 0.1, {}),
        ("optimizer.weightDecay", 0.1, {}),
        ("sampler.replicas", 4, {}),
        ("sampler.temperature", 0.7, {}),
        ("sampler.topP", 0.9, {}),
        ("sampler.topK", 50, {}),
        ("sampler.maxTokens", 512, {}),
        ("sampler.stop", ["END"], {}),
        ("sampler.rollDeadlineSeconds", 60.0, {}),
        ("sampler.maxUnavailable", 1, {"sampler": {"rollStrategy": "RollingUpdate"}}),
        ("sampler.maxSurge", 1, {"sampler": {"rollStrategy": "RollingUpdate"}}),
        ("learner.deadlineSeconds", 60.0, {}),
        ("evaluation.every", 5, {}),
        ("evaluation.samples", 4, {}),
        ("evaluation.temperature", 0.5, {}),
        ("evaluation.promptsPerUnit", 32, {}),
        ("evaluation.deadlineSeconds", 60.0, {}),
        ("storage.size", "200Gi", {}),
        ("storage.whenDeleted", "Delete", {}),
        ("retention.policies", 5, {}),
        ("retention.best", False, {}),
        ("retention.every", 5, {}),
        ("retention.states", 3, {}),
        ("retention.stateEvery", 2, {}),
        ("retention.rollouts", 5, {}),
        ("guards.maxVoidShare", 0.5, {}),
        ("guards.maxErrorShare", 0.5, {}),
        ("guards.maxUnparseableShare", 0.5, {}),
        ("guards.maxLogprobMismatch", 2.0, {}),
        ("guards.rewardCollapseRatio", 0.5, {}),
        ("restarts.limit", 5, {}),
        ("restarts.backoffSeconds", 20.0, {}),
        ("restarts.maxBackoffSeconds", 600.0, {}),
        ("deadlines.pendingSeconds", 600.0, {}),
        ("deadlines.holdSeconds", 600.0, {}),
        ("deadlines.samplingSeconds", 600.0, {}),
        ("deadlines.learningSeconds", 600.0, {}),
        ("deadlines.rollingSeconds", 600.0, {}),
        ("deadlines.runSeconds", 600.0, {}),
        ("objective.preset", "raft", {}),
        ("objective.kl", "loss", {}),
        ("logging.tensorboard", True, {}),
        ("suspend", True, {}),
        ("ttlSecondsAfterFinished", 60, {}),
    ],
    "next-attempt": [
        ("optimizer.beta1", 0.8, {}),
        ("optimizer.beta2", 0.9, {}),
        ("optimizer.epsilon", 1e-6, {}),
        ("optimizer.gradientClip", 0.5, {}),
        ("learner.processes", 2, {}),
        ("learner.nodes", 2, {}),
        ("learner.devices", [0], {}),
        ("learner.tokensPerMicroBatch", 4096, {}),
        ("learner.logprobChunkTokens", 256, {}),
        ("learner.zeroStage", 2, {}),
        ("learner.precision", "float32", {}),
        ("learner.activationCheckpointing", True, {}),
        ("learner.offload", "optimizer", {}),
        ("learner.metricsPort", 9999, {}),
        ("learner.image", "trainer:2", {}),
        ("learner.accelerator", "amd.com/gpu", {}),
        ("learner.podTemplate", {"spec": {"nodeSelector": {"gpu": "h200"}}}, {}),
        ("logging.level", "DEBUG", {}),
    ],
    "rolls-samplers": [
        ("sampler.devices", [0], {}),
        ("sampler.maxModelLength", 8192, {}),
        ("sampler.maxConcurrentSequences", 64, {}),
        ("sampler.kvCacheMib", 1024, {}),
        ("sampler.gpuMemoryUtilization", 0.8, {}),
        ("sampler.tensorParallel", 2, {}),
        ("sampler.engineArgs", {"enforce_eager": True}, {}),
        ("sampler.deterministic", True, {}),
        ("sampler.leaseSeconds", 60.0, {}),
        ("sampler.metricsPort", 9999, {}),
        ("sampler.image", "sampler:2", {}),
        ("sampler.accelerator", "amd.com/gpu", {}),
        ("sampler.podTemplate", {"spec": {"nodeSelector": {"gpu": "h200"}}}, {}),
    ],
}

IMMUTABLE = {
    "model.name",
    "model.revision",
    "model.fromRun",
    "model.dtype",
    "model.trustRemoteCode",
    "task.name",
    "task.source",
    "task.config",
    "task.split",
    "task.evalSource",
    "task.evalSplit",
    "task.fields.prompt",
    "task.fields.answer",
    "task.levels",
    "task.template",
    "task.chat",
    "task.system",
    "task.maxPromptTokens",
    "em.seed",
    "sampler.rollStrategy",
    "evaluation.prompts",
    "storage.claimName",
    "storage.storageClassName",
    "storage.accessMode",
    "storage.adopt",
    "queueName",
    "priorityClassName",
    "managedBy",
}
"""What the API server refuses to change, so that planning never sees it changed."""


def leaves(model: type[Spec], above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every field that declares what an edit of it does, as in manifests, with that."""
    for name, info in model.model_fields.items():
        path, extra = (*above, str(info.alias or name)), info.json_schema_extra
        if isinstance(extra, dict):
            yield ".".join(path), str(extra["x-empg-change"])
        else:
            assert isinstance(info.annotation, type)
            yield from leaves(info.annotation, path)


CLASSES = dict(leaves(RunSpec))


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def running(spec: dict[str, Any]) -> Steps:
    """A run whose pods all run."""
    steps = Steps(spec)
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.children["PersistentVolumeClaim", names.claim(NAME)]["status"] = {"phase": "Bound"}
    steps.report(progress=progress(policyVersion=1))
    steps.settle()
    return steps


def pods(steps: Steps) -> Any:
    return copy.deepcopy(steps.children["Deployment", names.sampler_deployment(NAME)]["spec"]["template"])


def config(steps: Steps) -> Any:
    return copy.deepcopy(steps.children["ConfigMap", names.config_map(NAME)]["data"])


def edited(path: str, value: Any, spec: dict[str, Any]) -> tuple[Steps, Steps]:
    """A run before and after an edit."""
    steps = running(spec)
    before = copy.deepcopy(steps)
    steps.edit(nested(path, value))
    steps.settle()
    assert steps.said("Accepted") == ("True", "Accepted")
    return before, steps


def digests(steps: Steps) -> tuple[str, str]:
    run = survey(steps.look(), steps.now).run
    return template_digest(run, "sampler"), template_digest(run, "learner")


def test_every_field_is_tried() -> None:
    tried = {path: change for change, edits in EDITS.items() for path, *_ in edits}
    assert tried | dict.fromkeys(IMMUTABLE, "immutable") == CLASSES


@pytest.mark.parametrize(("path", "value", "spec"), EDITS["live"])
def test_a_live_edit_touches_no_pod(path: str, value: Any, spec: dict[str, Any]) -> None:
    before, steps = edited(path, value, spec)
    assert digests(steps) == digests(before)
    assert steps.refusals == before.refusals
    assert pods(steps) == pods(before)
    assert config(steps) != config(before)
    assert steps.status()["attempt"] == 1
    changed = {kind for (kind, name), child in steps.children.items() if child != before.children.get((kind, name))}
    allowed = {"ConfigMap", "PersistentVolumeClaim"} if path.startswith("storage.") else {"ConfigMap"}
    if path in ("suspend", "sampler.replicas", "sampler.maxUnavailable", "sampler.maxSurge"):
        allowed.add("Deployment")
    assert changed == allowed
    assert steps.jobs() == ([] if path == "suspend" else ["demo-learner-1"])


@pytest.mark.parametrize(("path", "value", "spec"), EDITS["next-attempt"])
def test_the_next_attempt_has_the_edit_and_the_present_one_has_not(path: str, value: Any, spec: dict[str, Any]) -> None:
    before, steps = edited(path, value, spec)
    assert steps.job(1) == before.job(1)
    assert pods(steps) == pods(before)
    assert digests(steps)[0] == digests(before)[0]
    assert digests(steps)[1] != digests(before)[1]
    steps.replace_job(1, rule=2)
    steps.settle()
    revisions = [steps.job(attempt)["metadata"]["labels"][names.REVISION_LABEL] for attempt in (1, 2)]
    assert revisions[0] != revisions[1]
    assert revisions[1] == steps.status()["revisions"]["learner"]


@pytest.mark.parametrize(("path", "value", "spec"), EDITS["rolls-samplers"])
def test_sampler_pods_are_replaced(path: str, value: Any, spec: dict[str, Any]) -> None:
    before, steps = edited(path, value, spec)
    label = names.REVISION_LABEL
    assert pods(steps)["metadata"]["labels"][label] != pods(before)["metadata"]["labels"][label]
    assert steps.job(1) == before.job(1)
    assert digests(steps)[1] == digests(before)[1]
    assert (steps.jobs(), steps.samplers()) == (["demo-learner-1"], 2)


def test_every_edit_changes_something() -> None:
    base = Steps().run["spec"]
    for changes in EDITS.values():
        for path, value, spec in changes:
            old = RunSpec.model_validate(merged(base, spec))
            assert RunSpec.model_validate(merged(merged(base, spec), nested(path, value))) != old, path
