"""What was asked of the API server and what came of it, so that asking again in vain is noticed."""

from __future__ import annotations

import hashlib
import json

from empg_operator.decision import Manifest

_VOLATILE = ("managedFields", "resourceVersion", "generation")


class Answers:
    """The last apply of each object of a run, and what the object was after it.

    An API server may store something else than it was told, such as another spelling of a quantity. Whoever compares
    the two would apply for ever; with this the second try is not made.
    """

    def __init__(self) -> None:
        self._given: dict[str, tuple[bytes, bytes]] = {}

    def note(self, name: str, desired: Manifest, answer: Manifest) -> None:
        """Remember that `desired` was applied to the object of this name and made it `answer`."""
        self._given[name] = (_digest(desired), _digest(answer))

    def is_vain(self, name: str, desired: Manifest, observed: Manifest) -> bool:
        """Whether just this was applied before and led to just this object."""
        return self._given.get(name) == (_digest(desired), _digest(observed))

    def forget(self, name: str) -> None:
        """The object was deleted."""
        self._given.pop(name, None)


def lasting(manifest: Manifest) -> Manifest:
    """The part of an object that changes only when somebody means it to."""
    about = {name: value for name, value in manifest["metadata"].items() if name not in _VOLATILE}
    return {**{name: value for name, value in manifest.items() if name != "status"}, "metadata": about}


def _digest(manifest: Manifest) -> bytes:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).digest()
