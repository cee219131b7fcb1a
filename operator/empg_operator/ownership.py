"""Whose child an object is."""

from __future__ import annotations

from empg_operator.decision import Manifest
from empg_operator.kinds import RUN


def owner(child: Manifest) -> str | None:
    """UID of the run that owns an object; None for one that no run owns, such as a claim that outlives its run."""
    references = child["metadata"].get("ownerReferences") or ()
    return next((reference["uid"] for reference in references if reference["kind"] == RUN.name), None)
