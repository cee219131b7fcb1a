"""The user that a container runs as, which its image need not know."""

from __future__ import annotations

import getpass
import os

NAME = "empg"


def name_user() -> None:
    """Give the user a name where the system has none for its number: torch and vLLM name directories after it."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["USER"] = NAME
