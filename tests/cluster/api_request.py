"""Names a request to the Kubernetes API as the audit log does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "HEAD": "get"}


@dataclass(frozen=True)
class ApiRequest:
    """A request of a client."""

    verb: str
    """get, list, watch, create, update, patch, delete or deletecollection; for a path that is no resource, get."""
    resource: str
    """Plural, with subresource: `pods`, `jobs/status`. Empty for a path that is no resource."""
    namespace: str
    name: str
    path: str


def parse(method: str, path: str, query: Mapping[str, str]) -> ApiRequest:
    """Name the request with this HTTP method, path and query."""
    match path.strip("/").split("/"):
        case ["api", _, *below] if below:
            pass
        case ["apis", _, _, *below] if below:
            pass
        case _:
            return ApiRequest(_VERBS.get(method, method.lower()), "", "", "", path)
    namespace = ""
    if len(below) > 2 and below[0] == "namespaces" and below[2] not in ("status", "finalize"):
        _, namespace, *below = below
    resource, name, subresource = [*below, "", ""][:3]
    if method == "GET":
        watched = query.get("watch") in ("1", "true", "True")
        verb = "watch" if watched else "get" if name else "list"
    elif method == "DELETE":
        verb = "delete" if name else "deletecollection"
    else:
        verb = _VERBS.get(method, method.lower())
    return ApiRequest(verb, f"{resource}/{subresource}" if subresource else resource, namespace, name, path)
