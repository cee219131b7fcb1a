"""Safetensors files of a policy, read with read(2).

Never mapped into memory: a file that retention removes, or that a network file system truncates, would end the process
with SIGBUS. Tensors are read one at a time, so that the peak is the largest tensor and not the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER_BYTES = 100_000_000
"""The bound that safetensors itself sets."""
READ_THREADS = 4
"""Files of one policy that are read at a time; a network file system needs several to fill its link."""

Layout = Mapping[str, tuple[int, ...]]
"""Shape of each tensor of a checkpoint by its name."""


class BadPolicy(ValueError):
    """The policy must not be served; `args[0]` names the file and what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """One tensor in a file; `nbytes` follow those of the entry before it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


def verify(directory: Path, files: Mapping[str, tuple[int, str]]) -> Layout:
    """Read every safetensors file of a policy once and return what it holds.

    `files`: size in bytes and hex SHA-256 by file name, from the policy's manifest. Raises BadPolicy on a file that is
    missing, of another size or digest, malformed, or that holds a number that is not finite.
    """
    names = sorted(name for name in files if name.endswith(".safetensors"))
    if not names:
        raise BadPolicy(f"{directory}: the manifest lists no safetensors file")
    layout: dict[str, tuple[int, ...]] = {}
    with ThreadPoolExecutor(min(READ_THREADS, len(names))) as threads:
        for name, part in zip(
            names, threads.map(lambda name: _verify_file(directory / name, *files[name]), names), strict=True
        ):
            if twice := layout.keys() & part.keys():
                raise BadPolicy(f"{directory / name}: tensor {min(twice)!r} is in two files")
            layout |= part
    return layout


def read_tensors(paths: Sequence[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of everything in these files, in their order. For files that `verify` has passed."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            for entry in _parse(_header(file, path), path):
                yield entry.name, _tensor(file, entry, path)[0]


def differences(layout: Layout, expected: Layout) -> str:
    """How the tensors of a checkpoint differ from what the engine was built for; empty if they don't."""
    missing, extra = sorted(expected.keys() - layout.keys()), sorted(layout.keys() - expected.keys())
    shapes = sorted(
        f"{name} has shape {list(layout[name])}, not {list(expected[name])}"
        for name in layout.keys() & expected.keys()
        if layout[name] != expected[name]
    )
    parts = [f"{word} {names[:3]}" for word, names in (("missing", missing), ("unexpected", extra)) if names]
    return "; ".join(parts + shapes[:3])


def _verify_file(path: Path, size: int, digest: str) -> dict[str, tuple[int, ...]]:
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise BadPolicy(f"{path}: {error.strerror}") from error
    with file:
        found = path.stat().st_size
        if found != size:
            raise BadPolicy(f"{path}: {found} bytes, {size} in the manifest")
        raw = _header(file, path)
        entries = _parse(raw, path)
        sha256 = hashlib.sha256(len(raw).to_bytes(8, "little") + raw)
        for entry in entries:
            tensor, data = _tensor(file, entry, path)
            sha256.update(data)
            if tensor.is_floating_point() and tensor.element_size() > 1 and not torch.isfinite(tensor).all():
                raise BadPolicy(f"{path}: tensor {entry.name!r} holds a number that is not finite")
        while rest := file.read(1 << 20):
            sha256.update(rest)
    if sha256.hexdigest() != digest:
        raise BadPolicy(f"{path}: SHA-256 is {sha256.hexdigest()}, {digest} in the manifest")
    return {entry.name: entry.shape for entry in entries}


def _header(file: BinaryIO, path: Path) -> bytes:
    length = int.from_bytes(_read(file, 8, path), "little")
    if length > MAX_HEADER_BYTES:
        raise BadPolicy(f"{path}: not a safetensors file")
    return bytes(_read(file, length, path))


def _parse(raw: bytes, path: Path) -> list[Entry]:
    """Entries in file order. The format has no gaps between tensors, so their sizes place them."""
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        entries = [
            (
                value["data_offsets"][0],
                Entry(
                    name=name,
                    dtype=DTYPES[value["dtype"]],
                    shape=tuple(value["shape"]),
                    nbytes=value["data_offsets"][1] - value["data_offsets"][0],
                ),
            )
            for name, value in header.items()
        ]
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise BadPolicy(f"{path}: malformed safetensors header ({error!r})") from error
    position = 0
    ordered = []
    for start, entry in sorted(entries, key=lambda item: item[0]):
        if start != position or entry.nbytes != entry.dtype.itemsize * _count(entry.shape):
            raise BadPolicy(f"{path}: malformed safetensors header (offsets of {entry.name!r})")
        position += entry.nbytes
        ordered.append(entry)
    return ordered


def _tensor(file: BinaryIO, entry: Entry, path: Path) -> tuple[torch.Tensor, bytearray]:
    data = _read(file, entry.nbytes, path)
    if not data:
        return torch.empty(entry.shape, dtype=entry.dtype), data
    return torch.frombuffer(data, dtype=entry.dtype).reshape(entry.shape), data


def _read(file: BinaryIO, count: int, path: Path) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        try:
            got = file.readinto(view)  # type: ignore[attr-defined]  # an unbuffered file has it
        except OSError as error:
            raise BadPolicy(f"{path}: {error.strerror}") from error
        if not got:
            raise BadPolicy(f"{path}: the file ends {len(view)} bytes early")
        view = view[got:]
    return data


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
