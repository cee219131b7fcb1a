"""What a command says, and ends with, when the storage fails."""

from __future__ import annotations

import contextlib
import sys

from empg.exit_codes import RETRY, SPEC
from empg.store.base import KeyExists, KeyMissing, StoreError

_UNUSABLE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def storage_code(error: OSError | StoreError) -> int:
    """64 where a path that the user named can't be used; 75 where another try may go well, as on a full volume."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return SPEC if isinstance(error, KeyMissing | KeyExists) or isinstance(cause, _UNUSABLE) else RETRY


def tell(message: str) -> None:
    """Print to stderr, unless that is a file on the full volume itself: the exit code says it then."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr)
