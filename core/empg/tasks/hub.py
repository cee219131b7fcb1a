"""Data sets of the Hugging Face hub, or of its cache where the hub cannot be reached."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from empg.hub import HubAway, away

_LOG = logging.getLogger(__name__)

REACH_SECONDS = 10.0
"""Longest wait for the hub's first answer."""


@dataclass(frozen=True)
class _CacheOnly:
    """Why only the local cache can be read."""

    reason: str
    chosen: bool
    """By the user; otherwise the hub does not answer."""


def hub_rows(named_by: str, source: str, config: str | None, split: str) -> Iterator[dict[str, object]]:
    """Rows of one split.

    Raises:
        ValueError: neither hub nor cache has it; names the manifest's field `named_by`.
        HubAway: the cache does not have it, and the hub does not answer for now.
    """
    # Slow to import, and not needed for local files.
    import datasets
    from huggingface_hub.utils import httpx

    cache_only = _cache_only()
    try:
        yield from datasets.load_dataset(source, config, split=split)
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        name = f"{source} ({config})" if config else source
        if cache_only is not None:
            reason, retry = cache_only.reason, not cache_only.chosen
        else:
            silent = away(error)
            reason, retry = silent or str(error), silent is not None
        message = (
            f"{named_by}: cannot read split {split!r} of {name}: {reason}. "
            "Name a local .jsonl or .parquet file instead, or point HF_HOME to a cache that holds it"
        )
        raise (HubAway if retry else ValueError)(message) from error


@cache
def _cache_only() -> _CacheOnly | None:
    """Why only the local cache can be read; None when the hub answers, whatever it says."""
    import datasets
    from huggingface_hub import constants

    if datasets.config.HF_HUB_OFFLINE:
        return _CacheOnly("not in the local cache, and offline mode is on (HF_HUB_OFFLINE)", chosen=True)
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        reason = f"not in the local cache, and {constants.ENDPOINT} cannot be reached ({error})"
    else:
        return None
    _LOG.warning("%s cannot be reached; data sets are read from the local cache", constants.ENDPOINT)
    # Otherwise the library asks for every file several times, with growing pauses, before it looks there itself.
    datasets.config.HF_HUB_OFFLINE = True
    return _CacheOnly(reason, chosen=False)
