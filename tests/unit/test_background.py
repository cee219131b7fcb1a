"""Writing in the background: in order, finished before the process ends on SIGTERM, but not at any price."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from empg_trainer.background import in_background, settle

WRITER = """
import sys, time
from pathlib import Path
from empg_trainer.background import in_background
from empg_trainer.signals import leave_on_sigterm

leave_on_sigterm()
target, seconds = Path(sys.argv[1]), float(sys.argv[2])
in_background(lambda: (time.sleep(seconds), target.write_text("whole")))
Path(f"{target}.ready").touch()
time.sleep(60)
"""
LAUNCHER = """
import os, subprocess, sys
from empg_trainer.signals import leave_on_sigterm

leave_on_sigterm()
os._exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""


def test_one_thing_is_written_after_the_other_and_failures_are_told():
    order = []
    first = in_background(lambda: (time.sleep(0.1), order.append(1)))
    second = in_background(lambda: order.append(1 / 0))
    third = in_background(lambda: order.append(3))
    third.result(10)
    assert order == [1, 3]
    assert first.done()
    with pytest.raises(ZeroDivisionError):
        second.result(10)


def test_settling_waits_for_what_is_written_and_gives_up_in_time():
    let, order = threading.Event(), []
    in_background(lambda: order.append(let.wait(10)))
    settle(0.05)
    assert order == []
    let.set()
    settle(10)
    assert order == [True]


@pytest.mark.parametrize("launched", [False, True])
def test_sigterm_lets_a_process_and_its_ranks_finish_what_they_write(tmp_path, launched):
    target = tmp_path / "state"
    arguments = [WRITER, str(target), "0.5"]
    command = [sys.executable, "-c", LAUNCHER, *arguments] if launched else [sys.executable, "-c", *arguments]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while not target.with_suffix(".ready").exists():
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) == 75
    finally:
        process.kill()
    assert target.read_text() == "whole"
