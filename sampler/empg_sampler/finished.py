"""Whether a run has anything left to do."""

from __future__ import annotations

from pathlib import Path

from empg.api.load import load_run, parse_run
from empg.rundir import keys
from empg.rundir.final import read_final
from empg.store.base import KeyMissing, Store


def finished(store: Store, manifest: Path | None = None) -> bool:
    """Whether the run is over: it has a final record, and its manifest was not given more iterations since.

    `manifest`: where it is, if not in the run directory.
    """
    final = read_final(store)
    if final is None:
        return False
    if manifest is not None:
        return final.iterations >= load_run(manifest).spec.em.iterations
    try:
        data = store.get(keys.MANIFEST)
    except KeyMissing:
        return True
    return final.iterations >= parse_run(data, keys.MANIFEST).spec.em.iterations
