"""Children that a run has from its start to its end, whatever it does at the moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator.builders.access import access
from empg_operator.builders.config import config_map
from empg_operator.builders.monitor import pod_monitor
from empg_operator.builders.network import learner_service, network_policies
from empg_operator.builders.storage import claim
from empg_operator.names import Role
from empg_operator.settings import Settings


def standing_children(
    run: EMPGRun,
    settings: Settings,
    parent: Lineage | None,
    pod_monitors: bool,
    accounts: Mapping[Role, Iterable[str]] = MappingProxyType({}),
) -> tuple[dict[str, Any], ...]:
    """Objects for server-side apply, in the order in which they are needed.

    Args:
        run: a run with namespace and UID.
        settings: of this operator.
        parent: lineage of a run with `model.fromRun.name`; it must be known by now.
        pod_monitors: whether the cluster has the kind PodMonitor.
        accounts: service accounts of pods that were made before an edit, by role.
    """
    children: list[dict[str, Any] | None] = [*access(run, accounts), config_map(run, parent), claim(run)]
    children.append(learner_service(run))
    if settings.network_policies:
        children += network_policies(run, settings)
    if settings.pod_monitors and pod_monitors:
        children.append(pod_monitor(run, settings))
    return tuple(child for child in children if child is not None)
