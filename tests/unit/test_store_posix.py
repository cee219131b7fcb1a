import errno
import multiprocessing
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from small_volume import small_volume

from empg.store.base import KeyExists, KeyMissing, StorageFull, StoreError, retry_when_full
from empg.store.patient import PatientStore
from empg.store.posix import PosixStore

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return PosixStore(tmp_path / "run")


def test_what_is_written_is_read(store):
    store.create("a/b.json", b"1")
    store.put("a/c", b"\0" * 100_000)
    store.put("a/c", b"2")
    assert (store.get("a/b.json"), store.get("a/c")) == (b"1", b"2")


def test_create_keeps_what_is_there(store):
    store.create("key", b"first")
    with pytest.raises(KeyExists, match="key exists already"):
        store.create("key", b"second")
    store.create("key", b"first")
    assert store.get("key") == b"first"


def test_absent_keys_are_named(store):
    with pytest.raises(KeyMissing, match="a/b does not exist"):
        store.get("a/b")


def test_listings(store):
    for key in ("b/2", "b/10", "b/c/1", "a"):
        store.create(key, b"")
    assert store.list("") == ["a", "b/10", "b/2", "b/c/1"]
    assert store.list("b") == store.list("b/") == ["b/10", "b/2", "b/c/1"]
    assert store.list("nothing/here") == []
    assert store.children("") == ["a", "b"]
    assert store.children("b") == ["10", "2", "c"]
    assert store.children("nothing/here") == []


def test_delete_leaves_no_empty_directory(store):
    store.create("a/b/c", b"")
    store.create("a/d", b"")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert store.children("a") == ["d"]
    store.delete("a/d")
    assert store.children("") == []
    assert store.root.is_dir()


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "../a", "a/../b", ".tmp-1", "a/.b", "a b", "a\0", "a\n", "ä"])
def test_odd_keys_are_refused(store, key):
    with pytest.raises(ValueError, match="not a valid key"):
        store.put(key, b"")


def test_other_users_can_read_whatever_the_umask(store):
    before = os.umask(0o077)
    try:
        store.create("a/b/created", b"")
        store.put("a/b/put", b"")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [store.root, *store.root.rglob("*")]}
    assert modes == {"run": 0o755, "a": 0o755, "b": 0o755, "created": 0o644, "put": 0o644}


def test_a_file_in_place_of_a_directory_is_named(store):
    store.create("a", b"")
    with pytest.raises(StoreError, match="run/a"):
        store.create("a/b", b"")
    with pytest.raises(StoreError, match="run/a/b"):
        store.get("a/b")


def test_what_interrupted_writes_left_is_invisible_and_swept(store):
    store.create("a/b/key", b"")
    for leftover in ("a/.tmp-1", "a/b/.tmp-2"):
        (store.root / leftover).write_bytes(b"half")
    assert store.list("") == ["a/b/key"]
    assert store.children("a") == ["b"]
    assert store.sweep("a") == 2
    assert sorted(path.name for path in store.root.rglob("*")) == ["a", "b", "key"]


def test_writers_survive_sweeps_and_vanishing_directories(store):
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(0.03):
            store.sweep("")
            store.delete("a/b/other")

    with ThreadPoolExecutor() as threads:
        disturber = threads.submit(disturb)
        try:
            for number in range(300):
                store.create(f"a/b/{number}", b"x" * number)
                store.delete(f"a/b/{number}")
                store.put("a/b/other", b"y")
        finally:
            stop.set()
    disturber.result()


def test_readers_see_old_or_new_content_of_a_put(store):
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    store.put("key", contents[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                store.put("key", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {store.get("key") for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(contents)


def race(root: Path, barrier: Barrier, rounds: int, name: bytes, results: Connection) -> None:
    store = PosixStore(root)
    won = []
    for number in range(rounds):
        barrier.wait(60)
        try:
            store.create(f"race/{number}", name)
            won.append(number)
        except KeyExists:
            pass
    results.send(won)


def test_of_racing_processes_one_creates(store):
    writers, rounds = 4, 50
    barrier = SPAWN.Barrier(writers)
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(writers)]
    processes = [
        SPAWN.Process(target=race, args=(store.root, barrier, rounds, f"writer {number}".encode(), sender))
        for number, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    winners: dict[int, int] = {}
    for number, (receiver, _) in enumerate(pipes):
        assert receiver.poll(60)
        for key in receiver.recv():
            assert key not in winners, "two winners"
            winners[key] = number
    for process in processes:
        process.join(10)
    assert {key: f"writer {number}".encode() for key, number in winners.items()} == {
        number: store.get(f"race/{number}") for number in range(rounds)
    }


@pytest.mark.parametrize("call", ["link", "fsync", "write", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_failures_of_the_system_name_the_path_and_leave_nothing(store, monkeypatch, call, code):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    store.put("present", b"")
    kind = StorageFull if code in (errno.ENOSPC, errno.EDQUOT) else StoreError
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        write = store.put if call == "rename" else store.create
        with pytest.raises(kind, match="run/a") as caught:
            write("a/b", b"1")
    assert isinstance(caught.value, StorageFull) == (kind is StorageFull)
    assert [path for path in store.root.rglob("*") if path.is_file()] == [store.root / "present"]


def test_a_read_that_turned_stale_is_made_again(store, monkeypatch):
    store.put("key", b"1")
    real_open, failures = open, iter([True, True, False])

    def stale(*args: object, **kwargs: object) -> object:
        if next(failures):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real_open(*args, **kwargs)

    monkeypatch.setattr("builtins.open", stale)
    assert store.get("key") == b"1"


def test_a_listing_that_turned_stale_is_made_again(store, monkeypatch):
    store.put("below/key", b"1")
    real_scan, failures = os.scandir, iter([True, True, False, True, False])

    def stale(path: Path) -> object:
        if next(failures):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real_scan(path)

    monkeypatch.setattr(os, "scandir", stale)
    assert store.list("") == ["below/key"]


@pytest.mark.parametrize("look", ["list", "get"])
def test_what_stays_stale_is_told_with_its_remedy(store, monkeypatch, look):
    store.put("below/key", b"1")

    def stale(*args: object, **kwargs: object) -> object:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("builtins.open", stale)
    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(StoreError, match=r"below.* stays stale: unmount"):
        getattr(store, look)("below/key" if look == "get" else "below")


@pytest.fixture
def volume(tmp_path: Path):
    with small_volume(tmp_path) as path:
        yield path


def test_a_full_volume_refuses_loudly_and_goes_on_when_there_is_room(volume):
    store = PosixStore(volume)
    store.put("ballast", b"x" * 700_000)
    data = os.urandom(500_000)
    for write in (store.create, store.put):
        with pytest.raises(StorageFull, match=r"units/one could not be written .* free space"):
            write("units/one", data)
    assert store.list("") == ["ballast"]
    assert [path.name for path in volume.rglob("*") if path.is_file()] == ["ballast"]
    store.delete("ballast")
    store.create("units/one", data)
    assert store.get("units/one") == data


def test_waiting_for_room(volume, caplog):
    store = PosixStore(volume)
    store.put("ballast", b"x" * 700_000)
    threading.Timer(0.3, store.delete, ["ballast"]).start()
    retry_when_full(lambda: store.create("key", b"y" * 500_000), 10, pause=0.05)
    assert store.get("key") == b"y" * 500_000
    assert any("key could not be written" in record.message for record in caplog.records if record.levelname == "ERROR")


@pytest.mark.parametrize("write", ["create", "put"])
def test_a_patient_store_waits_for_room_but_not_for_ever(volume, write):
    store = PatientStore(volume, seconds=10, pause=0.05)
    store.put("ballast", b"x" * 700_000)
    threading.Timer(0.3, store.delete, ["ballast"]).start()
    getattr(store, write)("key", b"y" * 500_000)
    assert store.get("key") == b"y" * 500_000
    with pytest.raises(StorageFull):
        getattr(PatientStore(volume, seconds=0.2, pause=0.05), write)("more", b"z" * 700_000)
    with pytest.raises(KeyExists):
        store.create("key", b"other")


def test_waiting_for_room_ends():
    def full() -> None:
        raise StorageFull("path", "No space left on device")

    started = time.monotonic()
    with pytest.raises(StorageFull, match="path could not be written"):
        retry_when_full(full, 0.2, pause=0.05)
    assert 0.2 <= time.monotonic() - started < 5
