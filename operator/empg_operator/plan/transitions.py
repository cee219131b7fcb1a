"""Events: what changed from one status to the next, told once."""

from __future__ import annotations

from collections.abc import Iterator

from empg.api.status import RunStatus
from empg_operator.causes import GRAVITY
from empg_operator.conditions import cut, is_true
from empg_operator.decision import Event
from empg_operator.plan.attempts import Judged
from empg_operator.plan.explain import Picture
from empg_operator.plan.looks import EXPLAINED

_FAILED = ("Crashed", "InvalidSpec", "Diverged")
_STOPPED = ("RefusedByNode", "Retry", "Vanished")
_REFUSED = ("InvalidSpec", "TemplateRefused")


def transitions(picture: Picture, new: RunStatus) -> tuple[Event, ...]:
    """Events of a change of status, in the order in which things happened."""
    return tuple(Event(event.type, event.reason, cut(event.message)) for event in _transitions(picture, new))


def _transitions(picture: Picture, new: RunStatus) -> Iterator[Event]:
    old, roll = picture.situation.status, picture.course.roll
    yield from _spec(old, new)
    for judged in picture.course.tally.ends:
        yield from _end(picture, judged)
    if picture.course.released:
        yield Event("Warning", "Released", _message(new, "Ready"))
    if roll.delete is not None:
        yield Event(
            "Warning", "LaggardDeleted", f"Pod {roll.delete.name} did not come by policy {roll.policy} in time."
        )
    # Learner and samplers that take turns do so in every iteration, which is nothing to be told every time.
    if new.attempt > old.attempt and not (picture.situation.alternate and old.sampled == old.attempt):
        yield Event("Normal", "AttemptStarted", f"Attempt {new.attempt} of the learner is started.")
    if new.samplers.desired != old.samplers.desired and not picture.situation.alternate:
        yield Event("Normal", "SamplersScaled", f"From {old.samplers.desired} to {new.samplers.desired} samplers.")
    # How an attempt ended was told above.
    for part in ("SamplersReady",) if picture.course.tally.ends else ("LearnerReady", "SamplersReady"):
        reason = was(new, part)
        if reason in GRAVITY and reason != was(old, part):
            yield Event("Warning", reason, _message(new, part))
    yield from _outcome(old, new)


def _spec(old: RunStatus, new: RunStatus) -> Iterator[Event]:
    if was(old, "Accepted") != was(new, "Accepted") and was(new, "Accepted") in _REFUSED:
        yield Event("Warning", "TemplateRefused", _message(new, "Accepted"))
    if was(new, "Ready") == "ParentMissing" != was(old, "Ready"):
        yield Event("Warning", "ParentMissing", _message(new, "Ready"))
    suspended = is_true(old.conditions, "Suspended"), is_true(new.conditions, "Suspended")
    if suspended[1] and not suspended[0]:
        yield Event("Normal", "Suspended", suspended[1].message)
    if suspended[0] and not suspended[1]:
        yield Event("Normal", "Resumed", "The run goes on from its newest state.")


def _end(picture: Picture, judged: Judged) -> Iterator[Event]:
    words = picture.course.last_words
    explained = words is not None and judged == picture.course.tally.ends[-1] and judged.end in EXPLAINED
    message = words.message if words is not None and explained else judged.message
    if judged.end in _FAILED:
        yield Event("Warning", "LearnerFailed", f"Attempt {judged.attempt}: {message}")
    elif judged.end == "Evicted":
        yield Event("Normal", "Evicted", _free(judged.attempt, message))
    elif judged.end in _STOPPED:
        yield Event("Normal", "LearnerStopped", _free(judged.attempt, message))


def _free(attempt: int, message: str) -> str:
    # What the Job says is no whole sentence.
    return f"Attempt {attempt}: {message.removesuffix('.')}. It costs no restart."


def _outcome(old: RunStatus, new: RunStatus) -> Iterator[Event]:
    if (complete := is_true(new.conditions, "Complete")) and not is_true(old.conditions, "Complete"):
        yield Event("Normal", "Completed", complete.message)
    if (failed := is_true(new.conditions, "Failed")) and not is_true(old.conditions, "Failed"):
        late = failed.reason.endswith("DeadlineExceeded")
        yield Event("Warning", "DeadlineExceeded" if late else "Failed", f"{failed.reason}: {failed.message}")


def was(status: RunStatus, kind: str) -> str:
    """Reason of a condition; empty without one."""
    return next((condition.reason for condition in status.conditions if condition.type == kind), "")


def _message(status: RunStatus, kind: str) -> str:
    return next((condition.message for condition in status.conditions if condition.type == kind), "")
