"""What a failure of the Hugging Face hub means: a wrong name, or a hub that is away for a while."""

from __future__ import annotations

from http import HTTPStatus

BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers below 500 that say nothing about what was asked for."""


class HubAway(Exception):
    """The hub gives no answer, or none for now, and the cache does not hold what is asked for; try again later."""


def away(error: BaseException) -> str | None:
    """Why the hub could not be asked, where that made the library raise `error`; None where it was and refused."""
    # Slow to import, and not needed for local files.
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    silent = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OfflineModeIsEnabled):
            return None
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            return _line(cause) if status in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
        if isinstance(cause, (*silent, ConnectionError, TimeoutError)):
            return _line(cause)
        # The library drops some causes with `from None`; what it handled then is still known.
        cause = cause.__cause__ or cause.__context__
    return None


def _line(error: BaseException) -> str:
    """The first line of its message."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__
