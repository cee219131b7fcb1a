"""Data sets of the Hugging Face hub, or of its cache where the hub cannot be reached."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache

_LOG = logging.getLogger(__name__)

REACH_SECONDS = 10.0
"""Longest wait for the hub's first answer."""


def hub_rows(named_by: str, source: str, config: str | None, split: str) -> Iterator[dict[str, object]]:
    """Rows of one split. ValueError, naming the manifest's field `named_by`, when neither hub nor cache has it."""
    # Slow to import, and not needed for local files.
    import datasets

    offline = _offline()
    try:
        yield from datasets.load_dataset(source, config, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        name = f"{source} ({config})" if config else source
        raise ValueError(
            f"{named_by}: cannot read split {split!r} of {name}: {offline or error}. "
            "Name a local .jsonl or .parquet file instead, or point HF_HOME to a cache that holds it"
        ) from error


@cache
def _offline() -> str | None:
    """Why only the local cache can be read; None when the hub answers, whatever it says."""
    import datasets
    from huggingface_hub import constants

    if datasets.config.HF_HUB_OFFLINE:
        return "not in the local cache, and offline mode is on (HF_HUB_OFFLINE)"
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
    return reason
