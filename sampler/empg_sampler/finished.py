"""Whether a run has anything left to do."""

from __future__ import annotations

from empg.api.load import parse_run
from empg.rundir import keys
from empg.rundir.final import read_final
from empg.store.base import KeyMissing, Store


def finished(store: Store) -> bool:
    """Whether the run is over: it has a final record, and its manifest was not given more iterations since."""
    final = read_final(store)
    if final is None:
        return False
    try:
        manifest = store.get(keys.MANIFEST)
    except KeyMissing:  # on Kubernetes the manifest is not in the run directory
        return True
    return final.iterations >= parse_run(manifest, keys.MANIFEST).spec.em.iterations
