"""A program that crashes tells of it and is gone."""

import subprocess
import sys

import pytest

CODE = """
import threading, time
from empg.crash import end_at_once_on_crash
end_at_once_on_crash()
threading.Thread(target=time.sleep, args=(600,)).start()
print("so far")
"""
RANK = """
import torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
"""


@pytest.mark.parametrize("more", ["", RANK], ids=["plain", "rank"])
def test_a_crash_is_told_and_waits_for_no_thread(more: str) -> None:
    code = CODE + more + "raise RuntimeError('what happened')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stdout == "so far\n"
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("RuntimeError: what happened\n")
