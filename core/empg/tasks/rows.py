"""Rows of a data set: a local .jsonl or .parquet file, or a split on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pyarrow
from pyarrow import parquet

from empg.tasks.hub import hub_rows

FILE_SUFFIXES = (".jsonl", ".parquet")
_BATCH_ROWS = 1024
"""Rows of a Parquet file that are Python objects at a time."""


@dataclass(frozen=True)
class Row:
    """One row and where it stands, for error messages."""

    place: str
    columns: dict[str, object]


@dataclass(frozen=True)
class Location:
    """Where rows are: a file, or configuration and split of a hub data set. Equal locations hold the same rows."""

    named_by: str = field(compare=False)
    """The manifest's field that names the location, for error messages."""
    source: Path | str
    config: str | None = None
    split: str | None = None

    def rows(self) -> Iterator[Row]:
        """All rows in order. ValueError when they cannot be read."""
        if isinstance(self.source, str):
            assert self.split is not None, "a hub data set has splits"
            name = "/".join(part for part in (self.source, self.config, self.split) if part)
            for number, columns in enumerate(hub_rows(self.named_by, self.source, self.config, self.split)):
                yield Row(f"{name} row {number}", columns)
        elif not self.source.is_file():
            raise ValueError(f"{self.named_by}: no file {self.source}")
        elif self.source.suffix == ".jsonl":
            yield from _jsonl(self.source)
        else:
            yield from _parquet(self.source)


def locate(named_by: str, source: str, config: str | None, split: str, base_dir: Path) -> Location:
    """The location that a manifest means by `source`; files are relative to `base_dir`."""
    path = base_dir / source
    if path.suffix in FILE_SUFFIXES:
        return Location(named_by, path.resolve())
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(f"{named_by}: {source} is neither a .jsonl or .parquet file nor a hub id (owner/name)")
    return Location(named_by, source, config, split)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                columns = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(columns, dict):
                raise ValueError(f"{path}:{number}: a row must be a JSON object, not {type(columns).__name__}")
            yield Row(f"{path}:{number}", columns)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        with parquet.ParquetFile(path) as file:
            rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(_BATCH_ROWS))
            yield from (Row(f"{path} row {number}", columns) for number, columns in enumerate(rows))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
