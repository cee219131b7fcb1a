"""Tensors of a micro-batch."""

from hypothesis import given, settings
from hypothesis import strategies as st

from empg.trajectory import Trajectory
from empg.verdict import Verdict
from empg_trainer.batch import collate, sequence_length


def trajectory(prompt, response):
    return Trajectory(
        run="u",
        iteration=0,
        unit="00-0000",
        prompt_id="p",
        sample=0,
        prompt="",
        prompt_ids=tuple(prompt),
        response_ids=tuple(response),
        response="",
        logprobs=(0.0,) * len(response),
        policy_versions=((0, len(response)),),
        finish_reason="stop",
        reward=1.0,
        rewards={},
        verdict=Verdict.CORRECT,
    )


def test_two_sequences():
    rows = [trajectory([10, 11], [12, 13, 14]), trajectory([20], [21]), trajectory([30], [31, 32])]
    batch = collate(rows, [2, 0])
    assert batch.input_ids.tolist() == [30, 31, 10, 11, 12, 13]
    assert batch.position_ids.tolist() == [0, 1, 0, 1, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 2, 6]
    assert batch.max_length == 4
    assert batch.targets.tolist() == [31, 32, 12, 13, 14]
    assert batch.positions.tolist() == [0, 1, 3, 4, 5]
    assert batch.answers.tolist() == [2, 2, 0, 0, 0]
    assert batch.offsets.tolist() == [0, 1, 0, 1, 2]


TOKENS = st.lists(st.integers(0, 99), min_size=1, max_size=9)


@settings(deadline=None)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6))
def test_every_response_token_follows_its_predecessor(pairs):
    rows = [trajectory(*pair) for pair in pairs]
    batch = collate(rows, range(len(rows)))
    assert len(batch.input_ids) == sum(map(sequence_length, rows))
    for position, target, answer, offset in zip(
        batch.positions.tolist(), batch.targets.tolist(), batch.answers.tolist(), batch.offsets.tolist(), strict=True
    ):
        row = rows[answer]
        assert target == row.response_ids[offset]
        before = row.response_ids[offset - 1] if offset else row.prompt_ids[-1]
        assert batch.input_ids[position] == before


def test_nothing_to_pack_gives_one_meaningless_token():
    batch = collate([], [])
    assert batch.padding
    assert len(batch.targets) == 1
