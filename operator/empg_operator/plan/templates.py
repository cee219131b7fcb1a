"""Pod templates: frozen once the API server takes such a pod, so that only an edit of the run replaces pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.learner import learner_pod_template
from empg_operator.builders.sampler import sampler_pod_template
from empg_operator.decision import Manifest, Observed, Reference
from empg_operator.plan.situation import Situation
from empg_operator.revisions import controller_revision, frozen_template, template_digest
from empg_operator.settings import Settings

REFUSED_SECONDS = 60.0
"""After so long a refused pod is tried again: the cause may lie outside the run."""
ACCOUNT_SECONDS = 1.0
"""After so long the account of the pods, which was applied, is looked for again."""
KEPT = 5
"""Revisions of a role that are kept, those in use included."""

_BUILDERS: dict[names.Role, Callable[[EMPGRun, Settings, Lineage | None], dict[str, Any]]] = {
    "sampler": sampler_pod_template,
    "learner": learner_pod_template,
}


@dataclass(frozen=True)
class Template:
    """The pod template of a role, as far as there is one."""

    role: names.Role
    revision: str = ""
    """Name of the ControllerRevision that holds it; empty: there is none yet."""
    template: Mapping[str, Any] | None = None
    create: Manifest | None = None
    """ControllerRevision to create."""
    try_pod: tuple[str, Manifest] | None = None
    """Pod of a template that the API server has not judged, by the name that its revision will have."""
    refusal: tuple[str, str] | None = None
    """Reason and message of why the newest template can't be used; the one before stays in use."""
    again: float | None = None
    """When to ask again."""


def template(situation: Situation, settings: Settings, lineage: Lineage | None, role: names.Role) -> Template:
    """The template to use now."""
    run, observed = situation.run, situation.observed
    digest = template_digest(run, role)
    revision = names.revision(situation.name, role, digest)
    if (frozen := frozen_template(observed.children, run, role, digest)) is not None:
        return Template(role, revision, frozen)
    try:
        built = _BUILDERS[role](run, settings, lineage)
    except ValueError as error:
        return _former(situation, role, refusal=("InvalidSpec", str(error)))
    if not _account_exists(observed, situation.name, role):
        return _former(situation, role, again=situation.now + ACCOUNT_SECONDS)
    answer = observed.refusals.get(revision)
    if answer is None:
        return _former(situation, role, try_pod=(revision, _pod(run, revision, built)))
    if answer and "exceeded quota" not in answer:
        refusal = ("TemplateRefused", f"The API server refuses the {role}'s pods: {answer}")
        return _former(situation, role, refusal=refusal, again=situation.now + REFUSED_SECONDS)
    if (blocked := situation.blocked("ControllerRevision", revision)) is not None:
        return _former(situation, role, again=blocked.until)
    # With a quota that is used up, the pod itself is right, and waits.
    number = 1 + max((kept.get("revision", 0) for kept in _revisions(observed, role).values()), default=0)
    return Template(role, revision, built, create=controller_revision(run, role, digest, built, number))


def former(situation: Situation, role: names.Role) -> Template:
    """The template in use so far, whatever the spec says by now."""
    return _former(situation, role)


def accounts_in_use(observed: Observed, role: names.Role) -> frozenset[str]:
    """Service accounts that the kept templates of a role name: pods may have them that were made before an edit."""
    kept = _revisions(observed, role).values()
    return frozenset(each["data"]["template"]["spec"].get("serviceAccountName", "") for each in kept) - {""}


def superseded(observed: Observed, in_use: Template) -> tuple[Reference, ...]:
    """Revisions of a role that nobody is likely to need again."""
    others = [
        (kept.get("revision", 0), name, kept["metadata"].get("uid"))
        for name, kept in _revisions(observed, in_use.role).items()
        if name != in_use.revision
    ]
    return tuple(Reference("ControllerRevision", name, uid) for _, name, uid in sorted(others)[: -(KEPT - 1)])


def _former(
    situation: Situation,
    role: names.Role,
    *,
    try_pod: tuple[str, Manifest] | None = None,
    refusal: tuple[str, str] | None = None,
    again: float | None = None,
) -> Template:
    revisions = situation.status.revisions
    revision = revisions.sampler if role == "sampler" else revisions.learner
    kept = situation.observed.children.get(("ControllerRevision", revision))
    frozen = None if kept is None else kept["data"]["template"]
    return Template(role, revision if kept else "", frozen, try_pod=try_pod, refusal=refusal, again=again)


def _account_exists(observed: Observed, run: str, role: names.Role) -> bool:
    """Without the pod's account the API server refuses it, whatever its template is."""
    return ("ServiceAccount", names.service_account(run, role)) in observed.children


def _revisions(observed: Observed, role: names.Role) -> dict[str, Manifest]:
    return {
        name: manifest
        for (kind, name), manifest in observed.children.items()
        if kind == "ControllerRevision" and manifest["metadata"].get("labels", {}).get(names.ROLE_LABEL) == role
    }


def _pod(run: EMPGRun, name: str, template: Mapping[str, Any]) -> Manifest:
    metadata = {**template["metadata"], "name": name, "namespace": run.metadata.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
