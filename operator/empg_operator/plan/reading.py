"""The status as it was written before, by whatever version of whatever program."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from empg.api.status import RunStatus
from empg_operator.decision import Manifest


def read_status(data: Manifest) -> RunStatus:
    """The status of a run without what this version does not know: a status must never keep a run from being planned.

    An unknown key is left out; a value that is none of its field's is left out, with the object around it where that
    can't be without it.
    """
    try:
        return _validated(data)
    except ValidationError as error:
        return _without(copy.deepcopy(dict(data)), error)


Place = tuple[str | int, ...]


def _validated(data: Manifest) -> RunStatus:
    return RunStatus.model_validate(data, by_alias=True, by_name=False)


def _without(data: dict[str, Any], error: ValidationError) -> RunStatus:
    """The status without what an error tells of, and what the errors after that do."""
    # Deepest and last first, so that the places of the others stay what they are.
    places = {_culprit(details["type"], details["loc"]) for details in error.errors(include_url=False)}
    for place in sorted(places, key=lambda place: [str(part).zfill(9) for part in place], reverse=True):
        _remove(data, place)
    try:
        return _validated(data)
    except ValidationError as left:
        return _without(data, left)


def _culprit(kind: str, place: Place) -> Place:
    """What to leave out for an error: of a list or object that lacks something, all of it."""
    return place[:-1] if kind == "missing" else place


def _remove(data: Any, place: Place) -> None:
    *above, last = place
    for part in above:
        if isinstance(data, dict) and part not in data:
            return  # went with something around it
        data = data[part]
    if isinstance(data, list):
        del data[int(last)]
    else:
        data.pop(last, None)
