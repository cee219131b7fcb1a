from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import virtual_time

from empg_operator.metrics import Metrics
from empg_operator.queue import LONGEST_BACKOFF_SECONDS, Queue, TryLaterError

Work = Callable[[str], Awaitable[float | None]]


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def _running(work: Work, workers: int = 2, metrics: Metrics | None = None, draw: float = 1.0):
    queue = Queue(work, workers, metrics or Metrics(), lambda: draw)
    task = asyncio.create_task(queue.run())
    yield queue
    task.cancel()
    await asyncio.wait({task})


def test_a_key_added_often_is_worked_on_once() -> None:
    passes: list[str] = []

    async def work(key: str) -> None:
        passes.append(key)

    async def main() -> None:
        async with _running(work) as queue:
            for key in ("a", "b", "a", "a", "b"):
                queue.add(key)
            await asyncio.sleep(1)

    virtual_time.run(main())
    assert passes == ["a", "b"]


def test_a_key_that_changes_while_it_is_worked_on_is_worked_on_again_afterwards() -> None:
    at_work = 0
    begun: list[float] = []

    async def work(key: str) -> None:
        nonlocal at_work
        at_work += 1
        assert at_work == 1, "two workers at one key"
        begun.append(_now())
        await asyncio.sleep(10)
        at_work -= 1

    async def main() -> None:
        async with _running(work, workers=4) as queue:
            queue.add("a")
            for _ in range(3):
                await asyncio.sleep(2)
                queue.add("a")
            await asyncio.sleep(50)

    virtual_time.run(main())
    assert begun == [0, 10]


def test_workers_work_on_different_keys_at_a_time() -> None:
    begun: dict[str, float] = {}

    async def work(key: str) -> None:
        begun[key] = _now()
        await asyncio.sleep(10)

    async def main() -> None:
        async with _running(work, workers=2) as queue:
            for key in "abc":
                queue.add(key)
            await asyncio.sleep(50)

    virtual_time.run(main())
    assert begun == {"a": 0, "b": 0, "c": 10}


def test_failures_back_off_and_success_forgets_them() -> None:
    begun: list[float] = []
    fails = [True] * 4 + [False] + [True] * 2 + [False]

    async def work(key: str) -> None:
        begun.append(_now())
        if fails[len(begun) - 1]:
            raise TryLaterError("unavailable", "no")

    async def main() -> None:
        async with _running(work) as queue:
            queue.add("a")
            await asyncio.sleep(100)
            queue.add("a")
            await asyncio.sleep(100)

    virtual_time.run(main())
    assert begun == [0, 0.5, 1.5, 3.5, 7.5, 100, 100.5, 101.5]


def test_jitter_is_half_of_the_backoff_at_most_and_the_backoff_is_bounded() -> None:
    def waits(draw: float) -> list[float]:
        begun: list[float] = []

        async def work(key: str) -> None:
            begun.append(_now())
            raise TryLaterError("unavailable", "no")

        async def main() -> None:
            async with _running(work, draw=draw) as queue:
                queue.add("a")
                await asyncio.sleep(1000)

        virtual_time.run(main())
        return [later - earlier for earlier, later in itertools.pairwise(begun)]

    assert waits(0.0)[:3] == pytest.approx([0.25, 0.5, 1.0])
    assert waits(1.0)[-1] == pytest.approx(LONGEST_BACKOFF_SECONDS)


def test_work_that_is_cancelled_at_the_end_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    tasks: list[asyncio.Task[None] | None] = []

    async def work(key: str) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(50)

    async def main() -> None:
        async with _running(work, metrics=metrics) as queue:
            queue.add("a")
            await asyncio.sleep(1)
            assert tasks[0]
            tasks[0].cancel()
            await asyncio.sleep(1)

    virtual_time.run(main())
    assert metrics.registry.get_sample_value("empg_operator_reconcile_total", {"result": "bug"}) == 0
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("result", "level"), [("conflict", "INFO"), ("refused", "WARNING"), ("unavailable", "WARNING")]
)
def test_a_conflict_warns_nobody(result: str, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def work(key: str) -> None:
        raise TryLaterError(result, "no")

    async def main() -> None:
        async with _running(work) as queue:
            queue.add("a")
            await asyncio.sleep(0.1)

    virtual_time.run(main())
    assert [record.levelname for record in caplog.records] == [level]


def test_what_is_due_does_not_wait_for_the_backoff() -> None:
    begun: list[float] = []

    async def work(key: str) -> None:
        begun.append(_now())
        raise TryLaterError("refused", "no", due=3.0)

    async def main() -> None:
        async with _running(work) as queue:
            queue.add("a")
            await asyncio.sleep(14)

    virtual_time.run(main())
    assert begun == [0, 0.5, 1.5, 3.5, 6.5, 9.5, 12.5]


def test_a_key_the_server_wants_left_alone_is_not_woken_by_events() -> None:
    begun: list[float] = []

    async def work(key: str) -> None:
        begun.append(_now())
        if len(begun) == 1:
            raise TryLaterError("unavailable", "too many requests", after=30)

    async def main() -> None:
        async with _running(work) as queue:
            queue.add("a")
            for _ in range(5):
                await asyncio.sleep(2)
                queue.add("a")
            await asyncio.sleep(100)

    virtual_time.run(main())
    assert begun == [0, 30]


def test_an_event_does_not_wait_for_the_backoff() -> None:
    begun: list[float] = []

    async def work(key: str) -> None:
        begun.append(_now())
        if len(begun) <= 6:
            raise TryLaterError("refused", "no")

    async def main() -> None:
        async with _running(work) as queue:
            queue.add("a")
            await asyncio.sleep(16)
            queue.add("a")
            await asyncio.sleep(1)

    virtual_time.run(main())
    assert begun == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 16]


def test_a_pass_sets_when_the_next_one_is_and_the_next_one_resets_it() -> None:
    begun: list[float] = []
    answers: Iterator[float | None] = iter([10.0, 100.0, None, None])

    async def work(key: str) -> float | None:
        begun.append(_now())
        return next(answers)

    async def main() -> None:
        async with _running(work) as queue:
            queue.add("a")  # again at 10, and then at 110
            await asyncio.sleep(50)
            queue.add("a")  # the wish for 110 is void
            await asyncio.sleep(500)

    virtual_time.run(main())
    assert begun == [0, 10, 50]


def test_a_bug_in_one_key_leaves_the_others_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    passes: list[str] = []
    metrics = Metrics()

    async def work(key: str) -> None:
        passes.append(key)
        if key == "bad":
            raise KeyError("spec")

    async def main() -> None:
        async with _running(work, workers=1, metrics=metrics) as queue:
            queue.add("bad")
            queue.add("good")
            await asyncio.sleep(1)

    virtual_time.run(main())
    assert passes == ["bad", "good", "bad"]
    assert "bug in the operator" in caplog.text
    assert "KeyError: 'spec'" in caplog.text
    assert metrics.registry.get_sample_value("empg_operator_reconcile_total", {"result": "bug"}) == 2
    assert metrics.registry.get_sample_value("empg_operator_reconcile_total", {"result": "success"}) == 1


def test_depth_and_latency_are_measured() -> None:
    metrics = Metrics()
    depths: list[float | None] = []

    async def work(key: str) -> None:
        depths.append(metrics.registry.get_sample_value("empg_operator_workqueue_depth"))
        await asyncio.sleep(4)

    async def main() -> None:
        async with _running(work, workers=1, metrics=metrics) as queue:
            for key in "abc":
                queue.add(key)
            await asyncio.sleep(50)

    virtual_time.run(main())
    assert depths == [2, 1, 0]
    assert metrics.registry.get_sample_value("empg_operator_workqueue_latency_seconds_count") == 3
    assert metrics.registry.get_sample_value("empg_operator_workqueue_latency_seconds_sum") == 0 + 4 + 8
