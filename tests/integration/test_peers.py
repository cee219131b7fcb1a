"""Launchers of two nodes, each a process: what one of them hears when the other ends, dies or falls silent."""

import signal
import subprocess
import sys
import time

import pytest
from learner_runs import free_port

pytestmark = pytest.mark.slow

LAUNCHER = """
import logging, os, sys, time
from empg_trainer import peers
peers.BEAT_SECONDS, peers.SILENT_SECONDS, peers.SETTLE_SECONDS = 0.2, 4.0, 2.0
logging.basicConfig(level="INFO")
node, host, port, code = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with peers.Peers.meet(host, port, "attempt", node, 2, 60) as met:
    print("met", flush=True)
    if code < 0:
        time.sleep(60)
    os._exit(met.settle(code))
"""


@pytest.fixture
def pair():
    """Start both; a negative code is a node whose ranks go on."""
    started = []

    def start(*codes):
        port = free_port()
        for node, (host, code) in enumerate(zip(("localhost", "127.0.0.1"), codes, strict=True)):
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", LAUNCHER, str(node), host, port, str(code)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in started:
            assert process.stdout.readline() == "met\n"
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_both_end_with_what_came_first(pair):
    nodes = pair(1, 65)
    assert [node.wait(20) for node in nodes] == [65, 65]


def test_a_node_that_wants_to_be_started_again_is_no_crash(pair):
    nodes = pair(75, 1)
    assert [node.wait(20) for node in nodes] == [75, 75]


def test_nodes_that_are_done_end_at_once(pair):
    nodes = pair(0, 0)
    assert [node.wait(20) for node in nodes] == [0, 0]


@pytest.mark.parametrize("failed", [0, 1])
def test_ranks_that_do_not_notice_are_ended_with_the_code_of_the_other_node(pair, failed):
    codes = [-1, -1]
    codes[failed] = 65
    nodes = pair(*codes)
    assert nodes[failed].wait(20) == 65
    # Node 0 takes the store with it before node 1 may have read; then all that is known is that it is gone.
    assert nodes[1 - failed].wait(20) in ((65,) if failed else (65, 75))


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_node_ends_the_other(pair, lost, how):
    nodes = pair(-1, -1)
    time.sleep(1)
    nodes[lost].send_signal(how)
    assert nodes[1 - lost].wait(20) == 75


def test_a_node_that_never_comes_is_not_waited_for_without_end():
    code = LAUNCHER.replace('"attempt", node, 2, 60)', '"attempt", node, 2, 3)')
    done = subprocess.run(
        [sys.executable, "-c", code, "0", "localhost", free_port(), "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "NotMet: not all of the 2 nodes came within 3 s" in done.stderr
