"""What the learner says of itself in the run's status."""

import json
import time

import pytest

from empg.api.status import Progress, RunStatus
from empg.cluster.reporter import Pace, StatusReporter
from empg.rundir.heartbeat import SamplerRecord
from empg.rundir.progress import Progress as LearnerProgress
from empg_trainer.report import Report, holders, progress_of, recent


def sampler(name, policy):
    return SamplerRecord(id=name, incarnation="i", counter=0, progress=0, policy=policy)


def figures(iteration, **changes):
    row = {
        "iteration": iteration,
        "reward_mean": 0.5,
        "accuracy": 0.25,
        "kl_behaviour": 0.001,
        "entropy": 1.5,
        "tokens_per_second": 1234.56789,
        "staleness_mean": 0.0,
        "seconds_total": 2.0,
    }
    return row | changes


LEARNER = LearnerProgress(attempt=7, iteration=3, iterations=9, phase="sampling", policy=3, units_done=1, units_total=4)


def test_progress_has_the_newest_figures_and_evaluation():
    history = {1: figures(1), 2: figures(2, reward_mean=0.75)}
    progress = progress_of(2, LEARNER, history, {0: 0.1, 2: 0.4, 3: None}, [sampler("a", 3)], "2026-01-01T00:00:00Z")
    assert progress == Progress(
        attempt=2,
        iteration=3,
        iterations=9,
        phase="sampling",
        policy_version=3,
        units_done=1,
        units_total=4,
        reward=0.75,
        accuracy=0.25,
        evaluation=0.4,
        kl=0.001,
        tokens_per_second=1234.57,
        staleness=0.0,
        sampler_versions=({"policy": 3, "samplers": 1},),
        laggards=(),
        updated="2026-01-01T00:00:00Z",
    )


def test_figures_that_json_lacks_are_left_out():
    history = {0: figures(0, reward_mean=float("nan"), kl_behaviour=float("inf"), accuracy=None)}
    progress = progress_of(1, LEARNER, history, {}, [], "2026-01-01T00:00:00Z")
    assert (progress.reward, progress.kl, progress.accuracy, progress.evaluation) == (None, None, None, None)
    assert recent(history, {})[0].reward is None


def test_samplers_are_counted_by_version_and_laggards_named():
    records = [sampler(f"s{i:02d}", 3 if i < 5 else 2) for i in range(20)] + [sampler("loading", None)]
    versions, laggards = holders(records, newest=3)
    assert [(count.policy, count.samplers) for count in versions] == [(3, 5), (2, 15)]
    assert laggards == tuple(f"s{i:02d}" for i in range(5, 9))
    versions, laggards = holders([sampler(f"s{i}", 39 - i) for i in range(40)], newest=39)
    assert [count.policy for count in versions] == list(range(39, 31, -1))
    assert [count.samplers for count in versions] == [1] * 7 + [33], "nobody who stays behind is lost"
    assert laggards == tuple(f"s{i}" for i in range(39, 35, -1))


def test_the_last_five_iterations_are_told_of():
    rows = recent({i: figures(i) for i in range(9)}, {4: 0.5, 8: None})
    assert [row.iteration for row in rows] == [4, 5, 6, 7, 8]
    assert (rows[0].evaluation, rows[4].evaluation, rows[0].entropy, rows[0].seconds) == (0.5, None, 1.5, 2.0)


def test_a_full_report_fits_the_status_and_is_small():
    history = {i: figures(i) for i in range(100_000, 100_009)}
    records = [sampler(f"{'x' * 40}-sampler-{i:05d}-abcde", i) for i in range(40)]
    progress = progress_of(1, LEARNER, history, {0: 0.5}, records, "2026-01-01T00:00:00Z")
    status = {
        "progress": progress.model_dump(mode="json", by_alias=True, exclude_none=True),
        "recent": [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in recent(history, {})],
    }
    assert RunStatus.model_validate(status).progress == progress
    assert len(json.dumps(status)) < 2000


class Written:
    """Takes reports."""

    def __init__(self):
        self.fields = []

    def __call__(self, fields):
        self.fields.append(fields)


@pytest.mark.parametrize(
    ("change", "written"),
    [
        ({}, 1),
        ({"units_done": 2}, 1),
        ({"phase": "learning"}, 2),
        ({"iteration": 4}, 2),
    ],
)
def test_phases_are_news_and_units_are_not(change, written):
    sink = Written()
    with StatusReporter(sink, Pace(news=0.05, detail=600)) as reporter:
        report = Report(reporter, attempt=1)
        report.offer(LEARNER, {}, {}, [])
        time.sleep(0.2)
        report.offer(LEARNER.model_copy(update=change), {}, {}, [])
        time.sleep(0.3)
        assert len(sink.fields) == written


def test_publishing_is_no_news_and_the_last_laggard_is():
    sink = Written()
    with StatusReporter(sink, Pace(news=0.05, detail=600)) as reporter:
        report = Report(reporter, attempt=1)

        def offered(phase, held):
            report.offer(LEARNER.model_copy(update={"phase": phase}), {}, {}, [sampler("a", held)])
            time.sleep(0.3)
            return len(sink.fields)

        assert offered("learning", 3) == 1
        assert offered("publishing", 3) == 1
        assert offered("sampling", 2) == 2
        assert sink.fields[-1]["progress"]["laggards"] == ["a"]
        assert offered("sampling", 3) == 3
        assert sink.fields[-1]["progress"]["laggards"] == []
