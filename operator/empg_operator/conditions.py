"""Conditions as Kubernetes' API conventions have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from empg.api.status import Condition

MESSAGE_CHARACTERS = 500
"""Longest message: a status is small, and what the API server or a program says may be long."""
TOGETHER_BYTES = 1200
"""Of all messages of a run, so that with everything else that EMPG says of it the object stays below 10 KB."""


@dataclass(frozen=True)
class Statement:
    """What is to be said of a run now."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def set_conditions(
    present: Iterable[Condition], statements: Iterable[Statement], generation: int, now: str
) -> tuple[Condition, ...]:
    """Conditions after some statements, by type: one that was there keeps its time as long as its status is the same.

    A condition that no statement concerns stays as it is. Where messages are too long together, the longest give way.
    """
    conditions = {condition.type: condition for condition in present}
    for said in statements:
        before = conditions.get(said.type)
        conditions[said.type] = Condition(
            type=said.type,
            status=said.status,
            reason=said.reason,
            message=cut(said.message),
            last_transition_time=before.last_transition_time if before and before.status == said.status else now,
            observed_generation=generation,
        )
    return _fitted([conditions[kind] for kind in sorted(conditions)])


def is_true(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of this type, if it is true."""
    return next((condition for condition in conditions if condition.type == kind and condition.status == "True"), None)


def cut(message: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """A message, shortened where it is too long."""
    return message if len(message) <= limit else message[: limit - 1] + "…"


def _fitted(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """The same, with messages of `TOGETHER_BYTES` at most: the longest ones give way, and end with `…`."""
    room = longest = TOGETHER_BYTES
    for left, size in zip(range(len(conditions), 0, -1), sorted(_size(one.message) for one in conditions), strict=True):
        if size > room // left:
            longest = room // left
            break
        room -= size
    return tuple(
        one if _size(one.message) <= longest else one.model_copy(update={"message": _cut_bytes(one.message, longest)})
        for one in conditions
    )


def _size(message: str) -> int:
    return len(message.encode())


def _cut_bytes(message: str, limit: int) -> str:
    return message.encode()[: limit - _size("…")].decode(errors="ignore") + "…"
