"""Reports to the API server: what is sent, how often, and what happens while nobody takes them."""

import logging
import time

import pytest
from status_server import TOKEN, StatusServer

from empg.cluster.api_server import ApiError, RunGone, RunStatus
from empg.cluster.reporter import Pace, StatusReporter

QUICK = Pace(news=0.1, detail=0.3, growth=2.0, retry=0.1, longest_retry=0.2, last_retry=0.05)


@pytest.fixture
def server(tmp_path):
    with StatusServer(tmp_path) as server:
        yield server


def status_of(server, uid="u-1", manager="empg-learner"):
    return RunStatus.of_this_pod(server.environment(), uid, manager)


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_write_is_a_forced_server_side_apply_of_the_status(server):
    status_of(server).apply({"progress": {"iteration": 3}})
    (sent,) = server.applied
    assert sent.path == "/apis/empg.dev/v1alpha1/namespaces/team/empgruns/t/status"
    assert sent.query == {"fieldManager": ["empg-learner"], "force": ["true"]}
    assert sent.content_type == "application/apply-patch+yaml"
    assert sent.authorization == f"Bearer {TOKEN}"
    assert sent.body == {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "metadata": {"name": "t"},
        "status": {"progress": {"iteration": 3}},
    }


def test_the_token_is_read_for_every_write(server):
    status = status_of(server)
    status.apply({})
    (server.account / "token").write_text("rotated")
    status.apply({})
    assert [sent.authorization for sent in server.applied] == [f"Bearer {TOKEN}", "Bearer rotated"]


def test_refusals_and_absence_are_told_apart(server):
    status = status_of(server)
    for code in (401, 403, 409, 422, 500):
        server.answer = (code, {"message": "because of something"})
        with pytest.raises(ApiError, match=rf"\({code}\): because of something"):
            status.apply({})
    server.answer = (404, {"message": 'empgruns "t" not found'})
    with pytest.raises(RunGone, match="not found"):
        status.apply({})
    server.stop()
    with pytest.raises(ApiError, match="does not answer"):
        status.apply({})


def test_a_later_run_of_the_same_name_is_left_alone(server):
    status = status_of(server)
    server.uid = "u-2"
    with pytest.raises(RunGone, match="UID u-2 now"):
        status.apply({})
    assert server.applied == []
    status_of(server, uid=None).apply({})
    assert len(server.applied) == 1


def test_a_server_of_another_authority_is_not_told_the_token(server, tmp_path):
    with StatusServer(tmp_path / "other") as other:
        (server.account / "ca.crt").write_bytes((other.account / "ca.crt").read_bytes())
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            status_of(server).apply({})
    assert server.applied == []


def test_missing_variables_are_named():
    with pytest.raises(ValueError, match="KUBERNETES_SERVICE_PORT, EMPG_RUN in the environment"):
        RunStatus.of_this_pod({"KUBERNETES_SERVICE_HOST": "h", "EMPG_NAMESPACE": "n"}, None, "m")


def test_the_newest_value_is_written_and_none_is_queued(server):
    start = time.monotonic()
    with StatusReporter(status_of(server).apply, QUICK) as reporter:
        for value in range(1000):
            reporter.offer({"value": value}, news=value)
            time.sleep(0.0005)
    values = [status["value"] for status in server.statuses()]
    assert values[-1] == 999
    assert values == sorted(set(values))
    assert 3 <= len(values) <= 2 + (time.monotonic() - start) / QUICK.news


def test_details_are_written_at_growing_distances_and_the_same_value_never(server):
    with StatusReporter(status_of(server).apply, QUICK) as reporter:
        start = time.monotonic()
        while time.monotonic() - start < 2.5:
            reporter.offer({"value": time.monotonic()}, news="phase")
            time.sleep(0.01)
        reporter.offer({"value": 0}, news="phase")
        reporter.close(5)
        count = len(server.applied)
    # At 0, 0.3, 0.9, 2.1 s, and at the end.
    assert count == 5
    with StatusReporter(status_of(server).apply, QUICK) as reporter:
        for _ in range(30):
            reporter.offer({"value": 1}, news="phase")
            time.sleep(0.01)
    assert len(server.applied) == count + 1


def test_an_outage_is_told_once_and_caught_up_with(server, caplog):
    caplog.set_level(logging.INFO, "empg.cluster.reporter")
    server.stop()
    with StatusReporter(status_of(server).apply, QUICK) as reporter:
        longest = 0.0
        start = time.monotonic()
        value = 0
        while time.monotonic() - start < 1:
            value += 1
            before = time.perf_counter()
            reporter.offer({"value": value}, news=value)
            longest = max(longest, time.perf_counter() - before)
            time.sleep(0.01)
        assert longest < 0.2
        server.start()
        until(lambda: server.applied)
        reporter.offer({"value": -1}, news=-1)
        until(lambda: server.statuses()[-1] == {"value": -1})
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "takes the status again" in caplog.text
    assert server.statuses()[0]["value"] > 10  # what was offered first was replaced, not queued


def test_reports_end_quietly_with_the_run(server, caplog):
    server.answer = (404, {"message": "not found"})
    with StatusReporter(status_of(server).apply, QUICK) as reporter:
        reporter.offer({"value": 1}, news=1)
        until(lambda: server.applied)
        reporter.offer({"value": 2}, news=2)
        time.sleep(0.3)
    assert len(server.applied) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_last_report_is_tried_until_the_deadline_and_no_longer(server):
    server.answer = (503, {"message": "overloaded"})
    reporter = StatusReporter(status_of(server).apply, QUICK)
    with reporter:
        reporter.offer({"value": 1}, news=1)
        until(lambda: server.applied)
        server.answer = (200, {})
        reporter.offer({"value": 2}, news=2)
        reporter.close(5)
    assert server.statuses()[-1] == {"value": 2}

    server.delay = 30
    slow = StatusReporter(status_of(server).apply, QUICK)
    with slow:
        slow.offer({"value": 3}, news=3)
        time.sleep(0.1)
        before = time.monotonic()
        slow.close(0.5)
        assert time.monotonic() - before < 10


@pytest.mark.parametrize(("seconds", "writes"), [(30, 2), (300, 3), (1200, 4), (3600, 5)])
def test_a_long_iteration_costs_few_writes(seconds, writes):
    """The default pace on a clock of our own: units arrive all the time while sampling, and nothing while learning."""
    pace, found, details, wait = Pace(), 0, 0, Pace().wait(news=True, details=0, failures=0)
    at = wait
    while at < seconds:
        found += 1
        at += pace.wait(news=False, details=details, failures=0)
        details += 1
    assert found + 1 == writes
