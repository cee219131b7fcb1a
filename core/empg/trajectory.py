"""One sampled answer, and units of them as Parquet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from empg.verdict import Verdict

FinishReason = Literal["stop", "length"]

SCHEMA = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("iteration", pa.int64(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("response_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),
        pa.field(
            "policy_versions", pa.list_(pa.struct([("version", pa.int32()), ("tokens", pa.int32())])), nullable=False
        ),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("rewards", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
    ]
)
"""Columns of a unit file, exactly."""

_DIGEST_KEY = b"empg.sha256"
_DIGEST = re.compile(_DIGEST_KEY + rb".{1,8}?([0-9a-f]{64})", re.DOTALL)
_NO_DIGEST = b"0" * 64


@dataclass(frozen=True)
class Trajectory:
    """One answer to one prompt with its reward. ValueError when the parts contradict each other."""

    run: str
    """UID of the run."""
    iteration: int
    """Of the plan; for an evaluation the policy version."""
    unit: str
    prompt_id: str
    sample: int
    """Index of the answer among the answers to its prompt."""
    prompt: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """[T], with the end-of-sequence token where there was one."""
    response: str
    logprobs: tuple[float, ...]
    """[T] log-probs in nats of the sampled tokens under the policy that sampled them; float32 in files."""
    policy_versions: tuple[tuple[int, int], ...]
    """(policy version, number of tokens) runs, in order; the numbers sum to T."""
    finish_reason: FinishReason
    reward: float
    """NaN when the verdict does not train."""
    rewards: dict[str, float]
    """Named parts of the reward."""
    verdict: Verdict

    def __post_init__(self) -> None:
        tokens, name = len(self.response_ids), f"{self.prompt_id} sample {self.sample}"
        if len(self.logprobs) != tokens:
            raise ValueError(f"{name}: {len(self.logprobs)} log-probs for {tokens} tokens")
        if sum(count for _, count in self.policy_versions) != tokens:
            raise ValueError(f"{name}: policy_versions do not sum to {tokens} tokens")
        if self.finish_reason not in ("stop", "length"):
            raise ValueError(f"{name}: finish_reason {self.finish_reason!r} is that of no sample")


def to_parquet(rows: Sequence[Trajectory]) -> bytes:
    """The rows as one Parquet file (zstd, page checksums, and a digest of the whole file in its metadata).

    Texts that are no valid Unicode are mended: surrogate pairs become their character, lone surrogates U+FFFD.
    """
    columns = {
        "run": [row.run for row in rows],
        "iteration": [row.iteration for row in rows],
        "unit": [row.unit for row in rows],
        "prompt_id": [row.prompt_id for row in rows],
        "sample": [row.sample for row in rows],
        "prompt": [_mended(row.prompt) for row in rows],
        "prompt_ids": [row.prompt_ids for row in rows],
        "response_ids": [row.response_ids for row in rows],
        "response": [_mended(row.response) for row in rows],
        "logprobs": [row.logprobs for row in rows],
        "policy_versions": [
            [{"version": version, "tokens": tokens} for version, tokens in row.policy_versions] for row in rows
        ],
        "finish_reason": [row.finish_reason for row in rows],
        "reward": [row.reward for row in rows],
        "rewards": [list(row.rewards.items()) for row in rows],
        "verdict": [str(row.verdict) for row in rows],
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", write_page_checksum=True, store_schema=False) as writer:
        writer.write_table(pa.table(columns, schema=SCHEMA))
        writer.add_key_value_metadata({_DIGEST_KEY: _NO_DIGEST})
    data = bytes(sink.getvalue().to_pybytes())
    return _with_digest(data, hashlib.sha256(data).hexdigest().encode())


def from_parquet(data: bytes) -> list[Trajectory]:
    """The rows of a file that `to_parquet` made. ValueError for any other: truncated, flipped bits, other columns."""
    # Page checksums do not cover the footer, where one flipped bit can give rows other values.
    if hashlib.sha256(_with_digest(data, _NO_DIGEST)).hexdigest().encode() != _digest(data)[1]:
        raise ValueError("content does not match its digest")
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise ValueError(f"columns differ from those of a trajectory file: {_difference(file.schema_arrow)}")
            columns = file.read().to_pydict()
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise ValueError(f"no valid Parquet file: {error}") from error
    names = list(SCHEMA.names)
    return [_row(dict(zip(names, values, strict=True))) for values in zip(*(columns[n] for n in names), strict=True)]


def _digest(data: bytes) -> tuple[int, bytes]:
    """Place and value of the digest in the file's metadata."""
    match = _DIGEST.search(data, max(data.rfind(_DIGEST_KEY), 0))
    if match is None:
        raise ValueError("no trajectory file: its digest is lacking; truncated perhaps")
    return match.start(1), match[1]


def _with_digest(data: bytes, digest: bytes) -> bytes:
    start, old = _digest(data)
    return b"".join((data[:start], digest, data[start + len(old) :]))


def _row(values: dict[str, Any]) -> Trajectory:
    return Trajectory(
        **{
            **values,
            "prompt_ids": tuple(values["prompt_ids"]),
            "response_ids": tuple(values["response_ids"]),
            "logprobs": tuple(values["logprobs"]),
            "policy_versions": tuple((run["version"], run["tokens"]) for run in values["policy_versions"]),
            "rewards": dict(values["rewards"]),
            "verdict": Verdict(values["verdict"]),
        }
    )


def _mended(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _difference(schema: pa.Schema) -> str:
    lacking = [name for name in SCHEMA.names if name not in schema.names]
    extra = [name for name in schema.names if name not in SCHEMA.names]
    return f"lacking {lacking}, extra {extra}" if lacking or extra else "types or order differ"
