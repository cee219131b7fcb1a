import errno
import os
import subprocess
import sys
import threading

import pytest
from small_volume import small_volume

from empg.rundir.probe import Measurements, UnsuitableStorage, echo, lease_warning, ping, probe
from empg.store.base import StorageFull
from empg.store.posix import PosixStore


def test_a_local_disk_is_fine(tmp_path):
    measured = probe(tmp_path / "new", rounds=3)
    assert all(0 < seconds < 60 for seconds in vars(measured).values())
    assert list((tmp_path / "new").iterdir()) == []


def test_slowness_is_said():
    assert Measurements(fsync=0.1, link=0.1, rename=0.1, sync_directory=0.1).warnings() == []
    [warning] = Measurements(fsync=2.5, link=0.1, rename=0.1, sync_directory=0.1).warnings()
    assert warning.startswith("fsync takes 2.5 s here")


@pytest.mark.parametrize(
    ("call", "code", "reason"),
    [("link", errno.EPERM, "it refuses hard links"), ("fsync", errno.EINVAL, "it refuses fsync of a file")],
)
def test_a_file_system_that_refuses_is_refused(tmp_path, monkeypatch, call, code, reason):
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UnsuitableStorage, match=f"{tmp_path}: {reason}.*local disk, NFSv4"):
        probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_volume_is_not_unsuitable(tmp_path):
    """It will do when there is room again: the run must not end for it."""
    with small_volume(tmp_path) as volume:
        ballast = volume / "ballast"
        for room in (0, 4096, 6 * 4096):
            with pytest.raises(OSError, match="No space left"):
                ballast.write_bytes(b"x" * (2 << 20))
            os.truncate(ballast, ballast.stat().st_size - room)
            with pytest.raises(StorageFull, match="free space on its volume"):
                probe(volume)
            assert list(volume.iterdir()) == [ballast]


def test_links_that_overwrite_are_refused(tmp_path, monkeypatch):
    def link(source: str, target: str) -> None:
        with open(source, "rb") as file, open(target, "wb") as copy:
            copy.write(file.read())

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UnsuitableStorage, match=r"link\(\) over an existing name succeeds"):
        probe(tmp_path)


def test_links_that_only_look_before_they_write_are_refused(tmp_path, monkeypatch):
    all_looked = threading.Barrier(8)

    def link(source: os.PathLike, target: os.PathLike) -> None:
        exists = os.path.exists(target)
        if "race" in os.fspath(target):
            all_looked.wait(10)
        if exists:
            raise FileExistsError
        with open(source, "rb") as file, open(target, "wb") as copy:
            copy.write(file.read())

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UnsuitableStorage, match=r"of 8 racing link\(\) calls 8 succeeded"):
        probe(tmp_path)


ECHO = """
import sys, time
from pathlib import Path
from empg.rundir.probe import echo
from empg.store.posix import PosixStore
store = PosixStore(Path(sys.argv[1]))
while not echo(store):
    time.sleep(0.01)
"""


def test_the_answer_of_another_process_is_seen(tmp_path):
    store = PosixStore(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", ECHO, str(tmp_path)])
    try:
        delay = ping(store, 60)
    finally:
        other.kill()
        other.wait()
    assert delay is not None
    assert 0 < delay < 60
    assert store.list("probe") == []


def test_nobody_answers(tmp_path):
    store = PosixStore(tmp_path)
    assert ping(store, 0.1) is None
    assert store.list("probe") == []


def test_a_late_answer_is_cleared_away(tmp_path):
    store = PosixStore(tmp_path)
    store.create("probe/00.ping", b"")
    assert echo(store) == 1
    assert echo(store) == 0
    store.delete("probe/00.ping")
    assert ping(store, 0) is None
    assert store.list("probe") == []


def test_leases_must_outlast_visibility():
    assert lease_warning(30, 10) is None
    assert "sampler.leaseSeconds to 180 or more" in str(lease_warning(30, 60))
