"""The journal on a disk that others filled to the last byte: its reserve is really there, and what comes after it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.chaos import filling
from penstock.chaos.disks import DiskKind, Disks, missing
from penstock.raft import errors
from penstock.raft.disk import LmdbDisk
from penstock.raft.journal import RaftJournal, StoredSnapshot

MIB = 1024 * 1024
ENTRY = b"\0" + b"x" * 500


@pytest.fixture(params=[(DiskKind.TMPFS, 48 * MIB), (DiskKind.EXT4, 64 * MIB)], ids=["tmpfs", "ext4"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a small file system begins."""
    kind, size = request.param
    reason = missing(kind, tmp_path)
    if reason is not None:
        pytest.skip(reason)
    with Disks(tmp_path / "disks", kind, size) as disks:
        disks.prepare([1])
        yield disks.root(1)


def journal_at(root: Path) -> RaftJournal:
    LmdbDisk.format(root / "raft", "c1", 1, founding=True)
    journal = RaftJournal.open(root / "raft")
    journal.sync()
    return journal


def write(journal: RaftJournal, count: int) -> None:
    """So many commands, each in a commit of its own, with a snapshot every hundred."""
    for _ in range(count):
        journal.add(ENTRY, journal.last_index + 1, 1)
        if journal.last_index % 100 == 0:
            state = os.urandom(100_000)
            journal.store_snapshot(StoredSnapshot(journal.last_index, 1, state), keep_from=journal.last_index - 10)
        journal.sync()


def write_large(journal: RaftJournal, count: int) -> None:
    """So many large commands, none of them ever dropped."""
    for _ in range(count):
        journal.add(b"\0" + bytes(200_000), journal.last_index + 1, 1)
        journal.sync()


def test_a_full_disk_does_not_stop_the_metadata(root: Path) -> None:
    journal = journal_at(root)
    write(journal, 10)
    assert filling.fill(root, 0) < 64 * 1024
    write(journal, 1_500)
    journal.close()
    again = RaftJournal.open(root / "raft")
    assert again.last_index == journal.last_index
    write(again, 10)
    again.close()


def test_the_journal_says_it_when_the_reserve_is_used_up_and_goes_on_with_room(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_at(root)
    filling.fill(root, 0)
    with pytest.raises(errors.JournalWriteError, match="Free space or mend the disk, then restart"):
        write_large(journal, 200)
    assert sum("half of its reserve" in record.getMessage() for record in caplog.records) == 1
    assert journal.last_index > 15
    journal.abandon()
    (root / filling.FILLING).unlink()
    again = RaftJournal.open(root / "raft")
    assert again.last_index == journal.last_index - 1  # the one that failed was promised to nobody
    write(again, 10)
    again.close()


def test_more_is_reserved_before_the_reserve_is_used_up(root: Path) -> None:
    LmdbDisk.format(root / "raft", "c1", 1, founding=True, reserve=4 * MIB)
    journal = RaftJournal(LmdbDisk.open(root / "raft", 1, "c1", reserve=4 * MIB))
    write_large(journal, 15)
    filling.fill(root, 0)
    write_large(journal, 8)
    journal.close()
