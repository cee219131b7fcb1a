"""What becomes of a document on its way to the API server's checks, so that a file means the same here and there."""

from __future__ import annotations

import math
import typing
from typing import Any

from pydantic.fields import FieldInfo

from empg.api.base import Spec, section_model


def as_received(document: Any, model: type[Spec]) -> Any:
    """The document as the API server checks it; anything else about it is left to the model.

    kubectl writes `10.0` as `10`. The API server drops a null where none is allowed, and then takes the default.
    """
    if not isinstance(document, dict):
        return _numbers(document)
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    received = {}
    for key, value in document.items():
        info = fields.get(key)
        if info is None:
            received[key] = _numbers(value)
        elif value is not None or _takes_null(info):
            below = section_model(info.annotation)
            received[key] = as_received(value, below) if below else _numbers(value)
    return received


def _takes_null(info: FieldInfo) -> bool:
    return type(None) in typing.get_args(info.annotation)


def _numbers(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value
