"""Reasons to end the learner that are not crashes, each with its exit code."""

from __future__ import annotations

from empg import exit_codes


class Stop(Exception):
    """Ends the learner with `code`; the message is for the user."""

    code: int = exit_codes.RETRY

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Waiting(Stop):
    """Samplers have to work first, and on our GPUs."""

    code = exit_codes.WAITING


class Diverged(Stop):
    """A guard was left or a number is not finite; another attempt would end the same way."""

    code = exit_codes.DIVERGED


class BadSpec(Stop):
    """The manifest can't be trained; it has to be changed."""

    code = exit_codes.SPEC
