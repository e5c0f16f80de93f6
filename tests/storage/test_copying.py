"""A compact copy takes a store's place: the same content in less room, whatever comes between."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.protocol.batch import ProducerStamp
from penstock.storage import (
    Append,
    CommitFailedError,
    Committer,
    DamagedStoreError,
    DropLog,
    ForeignStoreError,
    MoveStart,
    StorageError,
    Store,
    StoreFullError,
    StoreLockedError,
    copying,
    env,
)
from penstock.storage.copying import Figures, check_room, compact, figures
from penstock.storage.env import COPY, DATA_FILE, LOCK_FILE, StoreOptions
from penstock.storage.heads import read_head, renumber
from tests.storage.damage_run import answers, fill
from tests.storage.support import append, batch, done, formatted, key, new_log, new_store, options
from tests.storage.test_room import MIB, small_disk, sweep_all

__all__ = ["small_disk"]  # a fixture

SEED = 7
ROOT = Path(__file__).parents[2]
KINDS = {"bit": 40, "structure": 40, "zeros": 60, "misplaced": 60}


def bare() -> StoreOptions:
    """Without a ballast, which would be most of what these small files take."""
    return options(ballast_bytes=0)


def grown(path: Path) -> Path:
    """A store with content, whose file has much more room than that takes."""
    fill(path)
    with contextlib.closing(Store.open(path, bare())) as store:
        log = new_log(store, 90)
        for at in range(100):
            append(store, log, batch(at, value=b"v" * 100_000))
        done(store, DropLog(log.key))
        sweep_all(store)
    return path


def test_content_is_the_same_in_a_smaller_file(tmp_path: Path) -> None:
    """Batches, epochs, producers, times, moved starts, high watermarks, identity, start ids."""
    path = grown(tmp_path / "store")
    expected = answers(path)
    before, after = compact(path, bare(), node_id=1)
    assert before.disk_bytes > 14 * MIB
    assert after.disk_bytes < before.disk_bytes - 9 * MIB
    assert after.disk_bytes < after.used_bytes + MIB
    assert answers(path) == expected
    assert sorted(entry.name for entry in path.iterdir()) == [DATA_FILE, "lock.mdb", LOCK_FILE]
    assert (path / DATA_FILE).stat().st_mode & 0o777 == 0o600


def test_a_store_goes_on_after_it(tmp_path: Path) -> None:
    path = grown(tmp_path / "store")
    for round_number in range(3):
        with contextlib.closing(Store.open(path, bare())) as store:
            log = store.log(key(0))
            assert log is not None
            end = log.state.log_end_offset
            append(store, log, batch(end, epoch=20, stamp=ProducerStamp(80, 0, round_number)))
            done(store, MoveStart(log, 20, 20 + 2 * round_number))
            sweep_all(store)
        expected = answers(path)
        compact(path, bare())
        assert answers(path) == expected


def test_what_waits_to_be_deleted_is_copied_and_deleted_later(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        logs = [new_log(store, number) for number in range(2)]
        for at in range(1_500):
            done(store, *(Append(log, 0, (batch(at),)) for log in logs))
        done(store, DropLog(logs[0].key), MoveStart(logs[1], 0, 1_200))
        Committer(store).sweep()
    compact(tmp_path / "store", bare())
    with contextlib.closing(Store.open(tmp_path / "store", bare())) as store:
        assert len(store.garbage) == 2
        sweep_all(store)
        assert store.garbage == {}
        (log,) = store.logs()
        assert [b.base_offset for b in log.read(1_200, 1_500, 2**30)] == list(range(1_200, 1_500))
    compact(tmp_path / "store", bare())


def test_an_empty_store(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    expected = answers(path)
    compact(path, bare())
    assert answers(path) == expected


def test_an_open_store_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store")), pytest.raises(StoreLockedError):
        compact(tmp_path / "store", bare())


def test_another_nodes_store_is_refused(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    with pytest.raises(ForeignStoreError):
        compact(path, bare(), node_id=2)


# ---- the numbers of the commits


def test_commits_are_numbered_on(tmp_path: Path) -> None:
    path = grown(tmp_path / "store")
    for _ in range(2):  # from an even number, and from an odd one
        with contextlib.closing(Store.open(path, bare())) as store:
            new_log(store, 50 + store.environment.commit_number())
        before = read_head(path / DATA_FILE).commit
        compact(path, bare())
        assert before < read_head(path / DATA_FILE).commit <= before + 2


@pytest.mark.parametrize("commits_after", [0, 1])
def test_the_former_file_is_refused_beside_the_note_of_the_copy(tmp_path: Path, commits_after: int) -> None:
    path = grown(tmp_path / "store")
    shutil.copy(path / DATA_FILE, tmp_path / "former")
    compact(path, bare())
    for _ in range(commits_after):
        with contextlib.closing(Store.open(path, bare())) as store:
            new_log(store, 50)
    shutil.copy(tmp_path / "former", path / DATA_FILE)
    with pytest.raises(DamagedStoreError, match="and there was a commit"):
        Store.open(path, bare())


def test_both_heads_of_a_copy_lead_to_its_content(tmp_path: Path) -> None:
    """LMDB's own first head would be an empty environment."""
    path = grown(tmp_path / "store")
    expected = answers(path)
    compact(path, bare())
    data = (path / DATA_FILE).read_bytes()
    head = bytearray(data[:4096])
    newer = read_head(path / DATA_FILE).commit
    head[144:152] = (newer + 1).to_bytes(8, sys.byteorder)
    (path / DATA_FILE).write_bytes(bytes(head) + data[4096:])
    assert answers(path) == expected


def test_only_a_new_copy_is_renumbered(tmp_path: Path) -> None:
    path = grown(tmp_path / "store")
    with pytest.raises(DamagedStoreError, match="no new copy"):
        renumber(path / DATA_FILE, 10_000)


# ---- room


def test_without_room_nothing_is_done(small_disk: Path) -> None:
    with contextlib.closing(new_store(small_disk / "store", ballast_bytes=0)) as store:
        log = new_log(store)
        for at in range(80):
            append(store, log, batch(at, value=b"v" * 100_000))
        found = figures(store.environment)
    before = (small_disk / "store" / DATA_FILE).read_bytes()
    with pytest.raises(StoreFullError) as refused:
        compact(small_disk / "store", bare())
    assert f"needs {found.needed_bytes} bytes, its file system has {found.free_bytes};" in str(refused.value)
    assert (small_disk / "store" / DATA_FILE).read_bytes() == before


def test_room_that_goes_while_it_copies(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's file: the copy is given up, and the room it took is free again."""
    path = small_disk / "store"
    with contextlib.closing(new_store(path, ballast_bytes=0)) as store:
        log = new_log(store)
        for at in range(100):
            append(store, log, batch(at, value=b"v" * 100_000))
        free = store.environment.free_bytes()
    monkeypatch.setattr(copying, "check_room", lambda *_: None)  # as if there was room a moment ago
    with pytest.raises(StoreFullError, match="could not be copied"):
        compact(path, bare())
    assert not (path / COPY).exists()
    with contextlib.closing(Store.open(path, bare())) as store:
        assert store.environment.free_bytes() >= free - MIB
        (log,) = store.logs()
        assert len(log.read(0, 100, 2**30)) == 100


def test_a_copy_fits_where_the_check_says_so(small_disk: Path) -> None:
    path = small_disk / "store"
    with contextlib.closing(new_store(path, ballast_bytes=0)) as store:
        log = new_log(store)
        for at in range(20):
            append(store, log, batch(at, value=b"v" * 100_000))
        found = figures(store.environment)
    (small_disk / "somebody").write_bytes(bytes(found.free_bytes - found.needed_bytes - 64 * 1024))
    compact(path, bare())


def test_what_a_copy_needs() -> None:
    found = Figures(used_bytes=100 * MIB, disk_bytes=400 * MIB, free_bytes=106 * MIB)
    assert found.needed_bytes == 106 * MIB
    check_room(found, Path())
    with pytest.raises(StoreFullError):
        check_room(found._replace(free_bytes=106 * MIB - 1), Path())


# ---- damage


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_store_is_never_copied_into_other_data(kind: str) -> None:
    command = [sys.executable, "-m", "tests.storage.damage_run", str(SEED), str(KINDS[kind]), kind, "compact"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280)
    tally = json.loads(ran.stdout)
    print(f"seed {SEED}: {tally}")
    assert tally["bad"] == [], ran.stderr
    assert tally["stopped"] <= KINDS[kind] // 20
    assert tally["damaged"] > KINDS[kind] // 10


def test_a_damaged_row_that_nobody_has_read_yet_stops_it(tmp_path: Path) -> None:
    path = grown(tmp_path / "store")
    data = bytearray((path / DATA_FILE).read_bytes())
    at = data.index(bytes([3]) * 40_000)
    data[at + 20_000] ^= 1
    (path / DATA_FILE).write_bytes(data)
    with pytest.raises(DamagedStoreError, match="checksum"):
        compact(path, bare())
    assert (path / DATA_FILE).read_bytes()[: len(data)] == data
    assert not (path / COPY).exists()


def test_a_copy_that_the_disk_spoils_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store itself is whole: that is no reason to give it up."""
    path = grown(tmp_path / "store")
    expected = answers(path)
    numbered = renumber

    def spoil(file: Path, after: int) -> int:
        with file.open("r+b") as data:
            content = data.read()
            data.seek(content.index(bytes([3]) * 40_000) + 20_000)
            data.write(b"\xff")
        return numbered(file, after)

    monkeypatch.setattr(copying, "renumber", spoil)
    with pytest.raises(StorageError, match="is not what was written to it") as refused:
        compact(path, bare())
    assert not isinstance(refused.value, DamagedStoreError | CommitFailedError)
    assert answers(path) == expected


# ---- crashes


def test_kill_9_at_any_step_leaves_the_store_or_its_copy(tmp_path: Path) -> None:
    path = grown(tmp_path / "store")
    command = [sys.executable, "-m", "tests.storage.compact_run", str(path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280)
    tally = json.loads(ran.stdout)
    print(tally)
    assert tally["wrong"] == [], ran.stderr
    assert tally["former"] > 30
    assert tally["kills"] - tally["former"] > 3  # some came after the copy had the store's name


def test_the_copy_is_durable_before_its_name_and_the_name_before_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a loss of power leaves one of the two as well, and no note beside the former file that refuses it."""
    path = grown(tmp_path / "store")
    steps = list[str]()

    def followed(module: object, name: str, told: str) -> None:
        real = getattr(module, name)

        def call(*arguments: object) -> object:
            steps.append(told)
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    followed(copying, "renumber", "written")
    followed(copying, "check_whole", "checked")
    followed(os, "fsync", "synced")
    followed(Path, "replace", "named")
    followed(env, "note_commit", "noted")
    compact(path, bare())
    assert steps == ["written", "synced", "checked", "named", "synced", "noted"]


@pytest.fixture
def unfinished(tmp_path: Path) -> Iterator[Path]:
    path = grown(tmp_path / "store")
    (path / COPY).mkdir()
    for name in (DATA_FILE, LOCK_FILE, "lock.mdb"):
        (path / COPY / name).write_bytes(b"half")
    yield path
    assert not (path / COPY).exists()


def test_an_unfinished_copy_goes_at_the_next_start(unfinished: Path) -> None:
    Store.open(unfinished, bare()).close()


def test_an_unfinished_copy_goes_at_the_next_attempt(unfinished: Path) -> None:
    compact(unfinished, bare())
