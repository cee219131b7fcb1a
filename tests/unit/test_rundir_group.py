import pytest
from rundir_samples import a_plan, new_run

from empg.rundir.group import (
    CorruptGroup,
    group_dir,
    newest_policy,
    policies,
    publish,
    publish_policy,
    publish_state,
    read_file,
    read_manifest,
    states,
)
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import Fenced, LearnerOwner
from empg.rundir.plans import create_plan
from empg.store.base import StorageFull
from empg.store.posix import PosixStore

FILES = [("config.json", b"{}"), ("weights/model.safetensors", bytes(range(256)))]
MANIFEST = "policy/000007/MANIFEST.json"


@pytest.fixture
def store(tmp_path):
    return new_run(tmp_path)


@pytest.fixture
def owner(store):
    return LearnerOwner.acquire(store, "learner")


def test_a_policy_is_published_as_a_whole(store, owner):
    manifest = publish_policy(store, owner, 7, FILES, {"parent": 6})
    assert read_manifest(store, "policy/000007") == manifest
    assert (manifest.run, manifest.meta) == ("uid-1", {"parent": 6})
    assert {name: read_file(store, "policy/000007", manifest, name) for name in manifest.files} == dict(FILES)
    assert (group_dir(store, "policy/000007", manifest) / "config.json").read_bytes() == b"{}"
    publish_state(store, owner, 4, FILES, {})
    assert (policies(store), newest_policy(store), states(store)) == ([7], 7, [4])


def test_nothing_is_there_before_the_first(store):
    assert (policies(store), newest_policy(store), states(store)) == ([], None, [])
    assert read_manifest(store, "policy/000000") is None


def test_a_published_policy_is_never_written_again(store, owner):
    first = publish_policy(store, owner, 7, FILES, {})
    before = store.list("policy")
    assert publish_policy(store, owner, 7, [("config.json", b"other")], {}) == first
    assert store.list("policy") == before


def test_a_crash_before_the_manifest_leaves_nothing_to_see(store, owner):
    def files():
        yield FILES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_policy(store, owner, 7, files(), {})
    assert store.list("policy") != []
    assert (policies(store), read_manifest(store, "policy/000007")) == ([], None)
    manifest = publish_policy(store, owner, 7, FILES, {})
    assert read_file(store, "policy/000007", manifest, "config.json") == b"{}"


def test_a_fenced_learner_publishes_nothing(store, owner):
    def files():
        yield FILES[0]
        LearnerOwner.acquire(store, "successor")
        yield FILES[1]

    with pytest.raises(Fenced, match=r"learner/owner.2: learner 'successor' took over from us, owner 1"):
        publish_policy(store, owner, 7, files(), {})
    assert policies(store) == []


def test_of_two_writers_that_both_pass_the_fence_one_wins_whole(store):
    inner = []

    def successor_is_faster() -> None:
        inner.append(publish(store, "policy/000007", "000002-b", [("b", b"2")], {}, lambda: None))

    outer = publish(store, "policy/000007", "000001-a", [("a", b"1")], {}, successor_is_faster)
    assert outer == inner[0] == read_manifest(store, "policy/000007")
    assert list(outer.files) == ["b"]


def test_every_flipped_bit_of_a_manifest_is_seen(store, owner):
    publish_policy(store, owner, 7, FILES, {"parent": 6})
    data = store.get(MANIFEST)
    for position in range(0, 8 * len(data), 7):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        store.local(MANIFEST).write_bytes(bytes(flipped))
        with pytest.raises(CorruptGroup, match=MANIFEST):
            read_manifest(store, "policy/000007")
    for length in range(0, len(data), 7):
        store.local(MANIFEST).write_bytes(data[:length])
        with pytest.raises(CorruptGroup, match=MANIFEST):
            read_manifest(store, "policy/000007")


def test_every_kind_of_damage_to_a_file_is_seen(store, owner):
    manifest = publish_policy(store, owner, 7, FILES, {})
    name, data = FILES[1]
    key = f"policy/000007/{manifest.attempt}/{name}"
    for damaged in (data[:-1], data + b"\0", data[:9] + b"\0" + data[10:], b""):
        store.put(key, damaged)
        with pytest.raises(CorruptGroup, match=f"{key}: differs from its manifest"):
            read_file(store, "policy/000007", manifest, name)
    store.delete(key)
    with pytest.raises(CorruptGroup, match=f"{key}: is missing"):
        read_file(store, "policy/000007", manifest, name)
    with pytest.raises(CorruptGroup, match=r"names no file tokenizer\.json"):
        read_file(store, "policy/000007", manifest, "tokenizer.json")


def test_manifests_of_another_place_are_refused(store, owner, tmp_path):
    publish_policy(store, owner, 7, FILES, {})
    store.put("policy/000008/MANIFEST.json", store.get(MANIFEST))
    with pytest.raises(CorruptGroup, match=r"policy/000008/MANIFEST.json: is the manifest of policy/000007"):
        read_manifest(store, "policy/000008")
    other = PosixStore(tmp_path / "other")
    prepare(other, Identity(uid="uid-2", name="other", spec_digest=""))
    other.put(MANIFEST, store.get(MANIFEST))
    with pytest.raises(CorruptGroup, match="is of run uid-1, the directory of uid-2"):
        read_manifest(other, "policy/000007")
    create_plan(store, a_plan())
    store.put(MANIFEST, store.get("rollout/000003/plan/00.json"))
    with pytest.raises(CorruptGroup, match=f"{MANIFEST}: no valid Manifest"):
        read_manifest(store, "policy/000007")


def test_a_group_for_which_there_is_no_room_leaves_nothing(store, owner):
    class Full(PosixStore):
        room = 1

        def put(self, key, data):
            self.room -= 1
            if self.room < 0:
                raise StorageFull(key, "No space left on device")
            super().put(key, data)

    full = Full(store.root)
    with pytest.raises(StorageFull):
        publish_state(full, owner, 4, FILES, {})
    assert store.list("learner/state") == []
    full.room = len(FILES)
    publish_state(full, owner, 4, FILES, {})
    assert states(store) == [4]
