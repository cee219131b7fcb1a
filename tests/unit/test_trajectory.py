import dataclasses
import hashlib
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rundir_samples import a_plan, rows_of

from empg.trajectory import SCHEMA, Trajectory, from_parquet, to_parquet
from empg.verdict import Verdict

[ROW, *_] = rows_of(a_plan(), "00-0000")


def test_rows_come_back_as_they_were():
    rows = rows_of(a_plan(), "00-0001")
    assert from_parquet(to_parquet(rows)) == rows


def test_columns_are_those_of_the_protocol():
    file = pq.ParquetFile(pa.BufferReader(to_parquet([ROW])))
    assert file.schema_arrow.names == [
        "run",
        "iteration",
        "unit",
        "prompt_id",
        "sample",
        "prompt",
        "prompt_ids",
        "response_ids",
        "response",
        "logprobs",
        "policy_versions",
        "finish_reason",
        "reward",
        "rewards",
        "verdict",
    ]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_nan_rewards_stay_nan():
    row = dataclasses.replace(ROW, reward=math.nan, rewards={"correct": math.nan, "format": 1.0}, verdict="timeout")
    [found] = from_parquet(to_parquet([row]))
    assert math.isnan(found.reward)
    assert math.isnan(found.rewards["correct"])
    assert found.rewards["format"] == 1.0
    assert found.verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(
    ("text", "stored"),
    [("a\0b", "a\0b"), ("\ud800x", "\ufffdx"), ("\ud83d\ude00", "\U0001f600"), ("x\udfff", "x\ufffd"), ("", "")],
)
def test_texts_that_utf8_lacks_are_mended(text, stored):
    [found] = from_parquet(to_parquet([dataclasses.replace(ROW, response=text, prompt=text)]))
    assert (found.response, found.prompt) == (stored, stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": (0.0,)}, "1 log-probs for 3 tokens"),
        ({"policy_versions": ((1, 2),)}, "do not sum to 3 tokens"),
        ({"finish_reason": "abort"}, "'abort' is that of no sample"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ROW, **change)


def test_every_truncation_is_an_error():
    data = to_parquet([ROW])
    for length in range(0, len(data), 37):
        with pytest.raises(ValueError, match="digest"):
            from_parquet(data[:length])
    with pytest.raises(ValueError, match="does not match its digest"):
        from_parquet(data[1:])


def test_every_flipped_bit_is_an_error():
    data = to_parquet(rows_of(a_plan(), "00-0000"))
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(ValueError, match="digest"):
            from_parquet(bytes(flipped))


def test_other_columns_are_refused():
    whole = pq.read_table(pa.BufferReader(to_parquet([ROW])))
    lacking = whole.drop_columns(["reward"])
    with pytest.raises(ValueError, match=r"lacking \['reward'\]"):
        from_parquet(digested(lacking))
    with pytest.raises(ValueError, match="types or order differ"):
        from_parquet(digested(lacking.append_column("reward", pa.array([1], pa.int64())).select(SCHEMA.names)))


def digested(table: pa.Table) -> bytes:
    """A Parquet file whose digest is right, whatever its columns."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"empg.sha256": "0" * 64})
    data = sink.getvalue().to_pybytes()
    start = data.rindex(b"0" * 64)
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + 64 :]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tokens=st.lists(st.integers(0, 2**31 - 1), max_size=20),
    text=st.text(max_size=50),
    reward=st.floats(allow_nan=False),
    cut=st.integers(0, 20),
    rewards=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), max_size=3),
)
def test_any_row_comes_back(tokens, text, reward, cut, rewards):
    cut = min(cut, len(tokens))
    row = Trajectory(
        run="r",
        iteration=1,
        unit="00-0000",
        prompt_id=text,
        sample=0,
        prompt=text,
        prompt_ids=(1,),
        response_ids=tuple(tokens),
        response=text,
        logprobs=(-0.25,) * len(tokens),
        policy_versions=((4, cut), (5, len(tokens) - cut)),
        finish_reason="length",
        reward=reward,
        rewards=rewards,
        verdict=Verdict.WRONG,
    )
    assert from_parquet(to_parquet([row])) == [row]
