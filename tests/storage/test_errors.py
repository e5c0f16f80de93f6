"""A store that must not open does not, is left as it was, and says what to do."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from penstock.storage import (
    Append,
    DamagedStoreError,
    ForeignStoreError,
    NewerFormatError,
    NotFormattedError,
    OlderFormatError,
    StorageError,
    Store,
    StoreLockedError,
    StoreOptions,
    Truncate,
)
from penstock.storage import env as env_module
from penstock.storage.env import DATA_FILE
from penstock.storage.layout import FORMAT_VERSION, LOCAL, seal
from penstock.storage.tail import AHEAD_BYTES
from tests.storage.support import CLUSTER, NODE, append, batch, done, formatted, key, new_log, new_store, options
from tests.storage.test_damage import raw_put

TEXT = "the text of somebody else"


def files(path: Path) -> dict[str, bytes]:
    return {
        entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name not in {"lock.mdb", "penstock.lock"}
    }


@pytest.mark.parametrize("exists", [True, False])
def test_unformatted(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "store"
    if exists:
        path.mkdir()
    with pytest.raises(NotFormattedError, match="penstockd format"):
        Store.open(path, options())
    assert not exists or not list(path.iterdir())


def test_some_other_lmdb_file(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with lmdb.open(str(path), max_dbs=2) as environment, environment.begin(write=True) as txn:
        txn.put(b"key", b"value", db=environment.open_db(b"theirs", txn))
    before = files(path)
    with pytest.raises(NotFormattedError, match="no Penstock store"):
        Store.open(path, options())
    assert files(path) == before


@pytest.mark.parametrize("content", [b"", TEXT.encode(), TEXT.encode() * 1000])
def test_no_lmdb_file_at_all(tmp_path: Path, content: bytes) -> None:
    path = formatted(tmp_path / "store")
    (path / DATA_FILE).write_bytes(content)
    with pytest.raises(DamagedStoreError, match="format --join"):
        Store.open(path, options())
    assert files(path)[DATA_FILE] == content


def test_foreign(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    with pytest.raises(ForeignStoreError, match=f"belongs to cluster '{CLUSTER}', not 'other'; correct data_dir"):
        Store.open(path, options(), cluster_id="other", node_id=NODE)
    with pytest.raises(ForeignStoreError, match="belongs to node 1, not 2; correct data_dir or node_id"):
        Store.open(path, options(), cluster_id=CLUSTER, node_id=2)
    Store.open(path, options(), cluster_id=CLUSTER, node_id=NODE).close()


def test_newer_format(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    raw_put(path, b"format", seal(b"format", LOCAL.pack(FORMAT_VERSION + 1)))
    with pytest.raises(NewerFormatError, match="start it with the version that wrote it, or a newer one"):
        Store.open(path, options())


def test_older_format(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    raw_put(path, b"format", seal(b"format", LOCAL.pack(FORMAT_VERSION - 1)))
    before = files(path)
    with pytest.raises(OlderFormatError, match="nothing was changed: start it with the version that wrote it"):
        Store.open(path, options())
    assert files(path)[DATA_FILE] == before[DATA_FILE]


def test_second_opening_in_this_process(tmp_path: Path) -> None:
    with (
        contextlib.closing(new_store(tmp_path / "store")),
        pytest.raises(StoreLockedError, match="stop that one first"),
    ):
        Store.open(tmp_path / "store", options())
    Store.open(tmp_path / "store", options()).close()


def test_second_process(tmp_path: Path) -> None:
    program = f"from penstock.storage import Store; Store.open(__import__('pathlib').Path({str(tmp_path / 'store')!r}))"
    with contextlib.closing(new_store(tmp_path / "store")):
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert "StoreLockedError" in ran.stderr
    assert "is in use by another process; stop that one first" in ran.stderr
    Store.open(tmp_path / "store", options()).close()


def test_a_refused_opening_gives_up_the_lock(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    for _ in range(3):
        with pytest.raises(ForeignStoreError):
            Store.open(path, options(), cluster_id="other")


def test_file_cut_short(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    log = new_log(store)
    for index in range(4):
        append(store, log, batch(index, value=b"v" * 500_000))
    pages = (store.environment.lmdb.info()["last_pgno"] + 1) * 4096
    store.close()
    data = (tmp_path / "store" / DATA_FILE).read_bytes()
    for length in (0, 100, 4096, 8192, pages // 2, pages - 1):
        (tmp_path / "store" / DATA_FILE).write_bytes(data[:length])
        with pytest.raises(DamagedStoreError, match=r"cut short|cannot be opened"):
            Store.open(tmp_path / "store", options())
        assert (tmp_path / "store" / DATA_FILE).stat().st_size == length
    (tmp_path / "store" / DATA_FILE).write_bytes(data[:pages])
    Store.open(tmp_path / "store", options()).close()


def test_pages_at_the_end_that_were_never_written_are_no_cut(tmp_path: Path) -> None:
    """LMDB counts pages that one transaction takes and frees, but does not write them."""
    store = new_store(tmp_path / "store")
    log = new_log(store)
    append(store, log, batch(0))
    for _ in range(3):
        big = (batch(1, value=b"v" * 2**20), batch(2, value=b"v" * 2**20))
        done(store, Append(log, 0, big), Truncate(log, 0, 1))
        store.close()
        store = Store.open(tmp_path / "store", options())
        found = store.log(key(1))
        assert found is not None
        log = found
        assert len(log.read(0, 1, 100)) == 1
    store.close()


def test_the_file_stays_ahead_of_its_pages(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    log = new_log(store)
    for index in range(5):
        append(store, log, batch(index, value=b"v" * (AHEAD_BYTES // 4)))
        pages = (store.environment.lmdb.info()["last_pgno"] + 1) * 4096
        assert (tmp_path / "store" / DATA_FILE).stat().st_size >= pages + AHEAD_BYTES // 2
    assert store.environment.disk_bytes() < 2 * 5 * AHEAD_BYTES // 4  # a hole takes no room
    store.close()


def test_unknown_durability() -> None:
    with pytest.raises(StorageError, match="none of commit, interval, os"):
        StoreOptions(durability="comit")


# ---- format


def test_format_refuses_what_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(TEXT)
    with pytest.raises(StorageError, match=r"is not empty: it holds notes\.txt"):
        Store.format(tmp_path, cluster_id=CLUSTER, node_id=NODE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_format_refuses_a_store(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    before = files(path)
    with pytest.raises(StorageError, match="is formatted already; to give its data up, move it away first"):
        Store.format(path, cluster_id=CLUSTER, node_id=NODE)
    assert files(path) == before


@pytest.mark.parametrize(("cluster_id", "node_id"), [("", 1), ("c", 0), ("c", -1), ("c", 2**32)])
def test_format_refuses_impossible_identities(tmp_path: Path, cluster_id: str, node_id: int) -> None:
    with pytest.raises(StorageError, match="needs a cluster id and a node id"):
        Store.format(tmp_path / "store", cluster_id=cluster_id, node_id=node_id)


def test_every_format_draws_another_store_id(tmp_path: Path) -> None:
    one, other = (Store.format(tmp_path / name, cluster_id=CLUSTER, node_id=NODE) for name in "ab")
    assert one.store_id != other.store_id
    assert len(one.store_id) == 16
    with contextlib.closing(Store.open(tmp_path / "a", options())) as store:
        assert store.identity == one


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", range(20))
def test_a_crash_while_formatting_leaves_nothing_or_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Each call that changes the directory is the last one, in turn."""
    path, calls = tmp_path / "store", 0

    def doomed(real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > step:
                raise Crash
            return real(*args, **kwargs)  # type: ignore[operator]  # whatever is patched

        return call

    with monkeypatch.context() as patch:
        for name in ("mkdir", "unlink", "rename", "iterdir"):
            patch.setattr(Path, name, doomed(getattr(Path, name)))
        patch.setattr(env_module, "_sync_directory", doomed(env_module._sync_directory))
        patch.setattr(env_module, "_open", doomed(env_module._open))
        patch.setattr(os, "truncate", doomed(os.truncate))
        patch.setattr(env_module, "seal", doomed(seal))
        with contextlib.suppress(Crash):
            Store.format(path, cluster_id=CLUSTER, node_id=NODE)
    if (path / DATA_FILE).exists():
        with pytest.raises(StorageError, match="formatted already"):
            Store.format(path, cluster_id=CLUSTER, node_id=NODE)
    else:
        with pytest.raises(NotFormattedError):
            Store.open(path, options())
        Store.format(path, cluster_id=CLUSTER, node_id=NODE)
    with contextlib.closing(Store.open(path, options())) as store:
        assert store.identity.cluster_id == CLUSTER
        new_log(store)
