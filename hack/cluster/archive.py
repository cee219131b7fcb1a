"""Image archives of a few static programs, written without a builder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write(path: Path, image: str, programs: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
    """Write an archive that container runtimes import as `image`.

    `programs` maps paths in the image to static programs; programs that are the same file are stored once.
    """
    layer = _layer(programs)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": "65535:65535", "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
    with tarfile.open(path, mode="w") as archive:
        _add(archive, "layer.tar", layer)
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer(programs: Mapping[str, Path]) -> bytes:
    stream = io.BytesIO()
    stored: dict[Path, str] = {}
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for folder in sorted({str(Path(name).parent) for name in programs} - {"."}):
            entry = tarfile.TarInfo(folder)  # not only for root to look into
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, program in programs.items():
            if program in stored:
                link = tarfile.TarInfo(name)
                link.type, link.linkname, link.mode = tarfile.LNKTYPE, stored[program], 0o755
                archive.addfile(link)
            else:
                stored[program] = name
                _add(archive, name, program.read_bytes())
    return stream.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))
