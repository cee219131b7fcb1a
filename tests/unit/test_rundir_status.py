import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from empg.rundir.status import Claim, UnitStatus, unit_status

HELD, DEAD = "live", "dead"


def claim(sampler: str = HELD, state: str = "held") -> Claim:
    return Claim(sampler=sampler, incarnation="1", policy=4, state=state)


def judge(claims=None, commits=(), rejects=(), attempts=3) -> UnitStatus:
    return unit_status("u", attempts, claims or {}, commits, rejects, lambda _, claim: claim.sampler == DEAD)


HOLDER = {"holder": HELD, "policy": 4, "incarnation": "1"}


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ({}, UnitStatus("u", "open", 0, 0)),
        ({"claims": {0: claim()}}, UnitStatus("u", "held", 0, 0, **HOLDER)),
        ({"claims": {0: claim(DEAD)}}, UnitStatus("u", "open", 1, 1)),
        ({"claims": {0: claim(state="released")}}, UnitStatus("u", "open", 1, 0)),
        ({"claims": {0: claim(state="failed")}}, UnitStatus("u", "open", 1, 1)),
        ({"claims": {0: claim(DEAD), 1: claim()}}, UnitStatus("u", "held", 1, 1, **HOLDER)),
        # The former holder is alive after all: only slow, so no failure.
        ({"claims": {0: claim(), 1: claim()}}, UnitStatus("u", "held", 1, 0, **HOLDER)),
        ({"claims": {0: claim(), 1: claim(DEAD)}}, UnitStatus("u", "open", 2, 1)),
        ({"claims": {0: claim()}, "commits": {0}}, UnitStatus("u", "committed", 0, 0)),
        # A late commit of a slow former holder, while the next attempt is held, is valid.
        ({"claims": {0: claim(DEAD), 1: claim()}, "commits": {0}}, UnitStatus("u", "committed", 0, 0)),
        ({"claims": {0: claim(), 1: claim()}, "commits": {0, 1}}, UnitStatus("u", "committed", 0, 0)),
        ({"commits": {2}}, UnitStatus("u", "committed", 2, 0)),
        ({"claims": {0: claim()}, "commits": {0}, "rejects": {0}}, UnitStatus("u", "open", 1, 1)),
        ({"claims": {0: claim()}, "rejects": {0}}, UnitStatus("u", "open", 1, 1)),
        ({"commits": {0, 1}, "rejects": {0}}, UnitStatus("u", "committed", 1, 1)),
        ({"claims": {0: claim(), 1: claim()}, "commits": {0}, "rejects": {0}}, UnitStatus("u", "held", 1, 1, **HOLDER)),
        # A failed or dead attempt that was also rejected failed once.
        ({"claims": {0: claim(DEAD)}, "commits": {0}, "rejects": {0}}, UnitStatus("u", "open", 1, 1)),
        ({"claims": {0: claim(DEAD), 1: claim(state="failed")}, "rejects": {2}}, UnitStatus("u", "void", 2, 3)),
        ({"claims": {n: claim(DEAD) for n in range(3)}, "commits": {1}}, UnitStatus("u", "committed", 1, 0)),
        ({"claims": {n: claim(state="released") for n in range(9)}}, UnitStatus("u", "open", 9, 0)),
        ({"claims": {0: claim(DEAD)}, "attempts": 1}, UnitStatus("u", "void", 0, 1)),
        # The newest holder is at work: it may still commit, however many failed before.
        ({"claims": {0: claim(DEAD), 1: claim()}, "attempts": 1}, UnitStatus("u", "held", 1, 1, **HOLDER)),
    ],
)
def test_table(observed, expected):
    assert judge(**observed) == expected


class UnitLife(RuleBasedStateMachine):
    """Samplers claim, commit, release, fail and die in any order, as the protocol lets them; the learner rejects."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[int, Claim] = {}
        self.commits: set[int] = set()
        self.rejects: set[int] = set()
        self.dead: set[str] = set()
        self.born = 0

    @property
    def status(self) -> UnitStatus:
        return unit_status("u", 3, self.claims, self.commits, self.rejects, lambda _, c: c.sampler in self.dead)

    def held(self) -> list[int]:
        return [n for n, claim in self.claims.items() if claim.state == "held" and n not in self.commits]

    @precondition(lambda self: self.status.state == "open")
    @rule()
    def take(self) -> None:
        attempt = self.status.attempt
        assert attempt not in self.claims, "an attempt is never offered twice"
        self.claims[attempt] = claim(f"s{self.born}")
        self.born += 1
        assert (self.status.state, self.status.attempt) == ("held", attempt)

    @precondition(lambda self: self.held())
    @rule(data=st.data(), state=st.sampled_from(["released", "failed"]))
    def end(self, data: st.DataObject, state: str) -> None:
        n = data.draw(st.sampled_from(self.held()))
        self.claims[n] = self.claims[n].model_copy(update={"state": state})

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.dead.add(self.claims[data.draw(st.sampled_from(self.held()))].sampler)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        # Dead holders too: they were slow.
        n = data.draw(st.sampled_from(self.held()))
        self.commits.add(n)
        assert n in self.rejects or (self.status.state == "committed" and self.status.attempt <= n)

    @rule(attempts=st.integers(1, 5))
    def more_patience_never_voids(self, attempts: int) -> None:
        judged = [
            unit_status("u", n, self.claims, self.commits, self.rejects, lambda _, c: c.sampler in self.dead).state
            for n in (attempts, attempts + 1)
        ]
        assert judged != ["open", "void"]

    @precondition(lambda self: self.status.state == "committed")
    @rule()
    def reject(self) -> None:
        attempt = self.status.attempt
        self.rejects.add(attempt)
        assert self.status.attempt != attempt or self.status.state == "void"

    @invariant()
    def one_of_the_four(self) -> None:
        status = self.status
        standing = self.commits - self.rejects
        assert (status.state == "committed") == bool(standing)
        assert status.failures <= len(self.claims)
        if status.state == "void":
            assert status.failures >= 3
        if status.state == "held":
            assert status.holder not in self.dead
            assert status.attempt == max(self.claims)
        if status.state == "open":
            assert status.failures < 3
            assert status.attempt == len(self.claims)


test_life_of_a_unit = UnitLife.TestCase
