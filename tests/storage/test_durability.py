"""The level that the operator chose is the one that LMDB is opened with; the default is the strongest."""

import contextlib
from pathlib import Path
from typing import Any

import lmdb
import pytest

from penstock.storage import CommitFailedError, Committer, Store, StoreOptions
from tests.storage.support import append, batch, formatted, key, new_log, new_store, options


@pytest.mark.parametrize(("level", "durable"), [("commit", True), ("interval", False), ("os", False), (None, True)])
def test_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str | None, durable: bool) -> None:
    path = formatted(tmp_path / "store")
    asked: dict[str, Any] = {}
    real = lmdb.open

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.update(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(lmdb, "open", spy)
    opened = Store.open(path, StoreOptions(map_bytes=1 << 30) if level is None else options(durability=level))
    with contextlib.closing(opened) as store:
        assert asked["sync"] is durable
        assert asked["metasync"] is durable
        assert asked["writemap"] is False
        assert store.durability == (level or "commit")
        flags = store.environment.lmdb.flags()
        assert flags["sync"] is durable
        assert flags["metasync"] is durable


@pytest.mark.parametrize("level", ["interval", "os"])
def test_weaker_levels_keep_what_was_written(tmp_path: Path, level: str) -> None:
    with contextlib.closing(new_store(tmp_path / "store", durability=level)) as store:
        append(store, new_log(store), batch(0), batch(1))
        Committer(store).sync()
    with contextlib.closing(Store.open(tmp_path / "store", options(durability=level))) as store:
        log = store.log(key(1))
        assert log is not None
        assert len(log.read(0, 2, 2**20)) == 2


def test_formatting_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    real = lmdb.open
    monkeypatch.setattr(lmdb, "open", lambda *args, **kwargs: (asked.update(kwargs), real(*args, **kwargs))[1])
    formatted(tmp_path / "store")
    assert asked["sync"] is True


def test_a_failed_fsync_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(new_store(tmp_path / "store", durability="interval")) as store:

        def fail() -> None:
            raise lmdb.Error("mdb_env_sync: Input/output error")

        monkeypatch.setattr(store.environment, "sync", fail)
        with pytest.raises(CommitFailedError, match="fsync"):
            Committer(store).sync()
