"""Several operators, of which one works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from operator_process import OperatorProcess
from waiting import eventually

from hack.controlplane.access import Access

LEASE_SECONDS = 15
Starter = Callable[..., OperatorProcess]


@pytest.fixture
def start(namespace: str, tmp_path: Path) -> Iterator[Starter]:
    """Starts an operator that stands for election."""
    flags = (f"--namespaces={namespace}", "--leader-election", f"--lease-namespace={namespace}")

    def started(name: str, kubeconfig: Path, *more: str) -> OperatorProcess:
        process = stack.enter_context(closing(OperatorProcess(kubeconfig, tmp_path / f"{name}.log", *flags, *more)))
        process.start()
        return process

    with ExitStack() as stack:
        yield started


def leads(process: OperatorProcess) -> bool:
    return process.metric("empg_operator_leading") == 1


def test_one_leads_and_the_next_takes_over_when_it_leaves(empgruns: Access, start: Starter) -> None:
    first = start("first", empgruns.kubeconfig)
    eventually(lambda: leads(first), "leader")
    second = start("second", empgruns.kubeconfig)
    time.sleep(5)
    assert (leads(first), leads(second)) == (True, False)
    left = time.monotonic()
    assert first.stop() == 0
    eventually(lambda: leads(second), "new leader")
    assert time.monotonic() - left < LEASE_SECONDS - 2, "it resigned, so that nobody waits for its Lease to end"


def test_operators_of_different_leases_do_not_wait_for_each_other(empgruns: Access, start: Starter) -> None:
    first = start("first", empgruns.kubeconfig)
    second = start("second", empgruns.kubeconfig, "--lease-name=another")
    eventually(lambda: leads(first) and leads(second), "two leaders")


def test_a_killed_leader_is_followed_when_its_lease_has_ended(empgruns: Access, start: Starter) -> None:
    first = start("first", empgruns.kubeconfig)
    eventually(lambda: leads(first), "leader")
    second = start("second", empgruns.kubeconfig)
    killed = time.monotonic()
    first.kill()
    eventually(lambda: leads(second), "new leader", seconds=LEASE_SECONDS + 15)
    assert time.monotonic() - killed > LEASE_SECONDS - 5


def test_a_leader_that_is_cut_off_ends_before_another_one_leads(
    empgruns: Access, start: Starter, tmp_path: Path
) -> None:
    with FaultProxy(empgruns.kubeconfig, tmp_path) as proxy:
        first = start("first", proxy.kubeconfig)
        eventually(lambda: leads(first), "leader")
        second = start("second", empgruns.kubeconfig)
        proxy.partition()
        assert first.wait(LEASE_SECONDS + 5) == 1
        assert not leads(second)
        assert "could not renew its Lease" in first.log.read_text()
        eventually(lambda: leads(second), "new leader", seconds=LEASE_SECONDS + 15)
