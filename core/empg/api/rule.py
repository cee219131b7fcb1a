"""Demands on several fields at once, stated for Python and for the API server side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A demand on the fields of one section. The models check it in Python, the API server in CEL."""

    field: str
    """Field of the section that the API server's refusal points to, as in manifests."""
    message: str
    """What is wrong and what to do about it. `({self.some_field})` stands for a value of the section, which only the
    models' message has: for the API server, making text of a number costs more than the rule."""
    cel: str
    """True when the demand is met; `self` is the section. A key that is a word of CEL is written `__key__`."""
    holds: Callable[[Any], bool]
    """The same for the model of the section."""

    def refusal(self, section: Any) -> str:
        """The message with the values of this section."""
        return self.message.format(self=section)

    @property
    def static_message(self) -> str:
        """The message without values."""
        return re.sub(r" \(\{[^}]*\}\)", "", self.message)
