"""A program that crashes tells of it and is gone."""

import subprocess
import sys

CODE = """
import threading, time
from empg.crash import end_at_once_on_crash
end_at_once_on_crash()
threading.Thread(target=time.sleep, args=(600,)).start()
print("so far")
raise RuntimeError("what happened")
"""


def test_a_crash_waits_for_no_thread() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == "so far\n"
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: what happened\n")
