"""What can go wrong between a client and the API server, and when."""

from __future__ import annotations

from dataclasses import dataclass

from api_request import ApiRequest

REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class Respond:
    """The request is not forwarded; this is the answer."""

    code: int
    retry_after: int | None = None
    """Seconds, in the header Retry-After."""


@dataclass(frozen=True)
class Delay:
    """The request is forwarded after some time."""

    seconds: float


@dataclass(frozen=True)
class DelayReply:
    """The API server does what was asked at once; the client learns of it after some time."""

    seconds: float


@dataclass(frozen=True)
class DropRequest:
    """The connection breaks before the API server has the request."""


@dataclass(frozen=True)
class DropReply:
    """The API server does what was asked, then the connection breaks."""


@dataclass(frozen=True)
class ExpireWatch:
    """A watch is told 410 Gone in its stream, so that its client must list again."""


@dataclass(frozen=True)
class StallWatch:
    """A watch is open and says nothing, as behind a firewall that forgot the connection."""


Fault = Respond | Delay | DelayReply | DropRequest | DropReply | ExpireWatch | StallWatch


@dataclass
class Rule:
    """A fault of the requests that match; an empty field matches any."""

    fault: Fault
    verb: str = ""
    resource: str = ""
    name: str = ""
    times: int | None = None
    """How many requests it strikes; None for all."""
    after: int = 0
    """How many requests pass before."""
    hits: int = 0
    """How many it has struck."""

    def strikes(self, request: ApiRequest) -> bool:
        """Whether this request fails by this rule; if so, it is counted."""
        wanted = ((self.verb, request.verb), (self.resource, request.resource), (self.name, request.name))
        if any(mine not in ("", theirs) for mine, theirs in wanted):
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.hits += 1
        return True
