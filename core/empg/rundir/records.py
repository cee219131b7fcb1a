"""JSON documents that carry their own checksum, so that none is used after a bit of it flipped."""

from __future__ import annotations

import hashlib
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from empg.store.base import Store

Model = TypeVar("Model", bound=BaseModel)

_ENVELOPE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","record":(\{.*\})\}\n', re.DOTALL)


class CorruptFile(Exception):
    """A file of the run directory is damaged or belongs elsewhere; it was not used."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"{key}: {reason}")


class CorruptRecord(CorruptFile):
    """A JSON document that can't be used. Move it away, or restore it, to go on."""


def encode(record: BaseModel) -> bytes:
    """The record as `{"sha256": …, "record": {…}}`; the digest is that of the bytes of the inner object."""
    body = record.model_dump_json(by_alias=True).encode()
    return b'{"sha256":"%s","record":%s}\n' % (hashlib.sha256(body).hexdigest().encode(), body)


def decode(key: str, data: bytes, model: type[Model]) -> Model:
    """The record that `encode` wrote under `key`. CorruptRecord for any other bytes."""
    match = _ENVELOPE.fullmatch(data)
    if match is None:
        raise CorruptRecord(key, "no record of a run directory; move the file away")
    digest, body = match.groups()
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CorruptRecord(key, "content does not match its checksum; move the file away or restore it")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise CorruptRecord(key, f"no valid {model.__name__}, written by another version perhaps: {error}") from error


def read(store: Store, key: str, model: type[Model]) -> Model:
    """The record under `key`. KeyMissing if there is none, CorruptRecord if it can't be used."""
    return decode(key, store.get(key), model)
