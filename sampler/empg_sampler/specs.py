"""The spec that a sampler starts with."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from empg.api.base import Change, Spec
from empg.api.load import load_run
from empg.api.run import RunSpec
from empg.rundir.specs import immutable_edit, newest_spec
from empg.store.base import Store
from empg_sampler.errors import InvalidSpec

AnySpec = TypeVar("AnySpec", bound=Spec)

AT_START: tuple[Change, ...] = ("rolls-samplers", "next-attempt")
"""Fields that a starting sampler takes from the manifest; the others follow the learner's iterations."""


def starting_spec(store: Store, manifest: Path | None) -> RunSpec | None:
    """The newest spec that the learner fixed, with engine settings from `manifest` if there is one; None before it.

    A sampler that is replaced because of an edit starts with the edited settings, though no iteration has them yet.
    InvalidSpec or InvalidManifest if the manifest can't be used for this run.
    """
    newest = newest_spec(store)
    if newest is None or manifest is None:
        return newest[1] if newest else None
    given = load_run(manifest).spec
    if field := immutable_edit(store, given):
        raise InvalidSpec(f"{manifest}: {field} is immutable; change it back, or start a new run")
    return with_room(overlay(newest[1], given, AT_START))


def overlay(base: AnySpec, given: AnySpec, changes: tuple[Change, ...]) -> AnySpec:
    """`base` with the fields of these reactions to edits as in `given`."""
    update: dict[str, object] = {}
    for name, info in type(base).model_fields.items():
        ours, theirs = getattr(base, name), getattr(given, name)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        if extra.get("x-empg-change") in changes:
            update[name] = theirs
        elif "x-empg-change" not in extra and isinstance(ours, Spec):
            update[name] = overlay(ours, theirs, changes)
    return base.model_copy(update=update)


def with_room(spec: RunSpec) -> RunSpec:
    """The spec with engines that are long enough for what is planned: a shorter `sampler.maxTokens` comes later."""
    needed = spec.task.max_prompt_tokens + spec.sampler.max_tokens
    if spec.sampler.max_model_length is None or spec.sampler.max_model_length >= needed:
        return spec
    sampler = spec.sampler.model_copy(update={"max_model_length": needed})
    return spec.model_copy(update={"sampler": sampler})
