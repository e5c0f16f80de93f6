"""The journal's data file is damaged: a start gives what was written or a DamagedJournalError, never other content.

What was voted for is in it, so the advice is never to found the cluster anew. Found by the chaos suite.
"""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from penstock.raft import datafile, errors
from penstock.raft.journal import RaftJournal, StoredSnapshot
from tests.raft.damage_run import content

SEED = 7
"""Fixed, so that the suite is the same each time; other seeds: python -m tests.raft.damage_run SEED COUNT KIND."""
ROOT = Path(__file__).parents[2]
COMMIT_AT = 144
"""Where LMDB's meta pages have the number of their commit."""
LEAF = 2
"""LMDB's flag of a page with rows."""
KINDS = {
    "bit": 60,
    "structure": 60,
    "head": 90,
    "astray": 60,
    "zeros": 60,
    "sector": 30,
    "misplaced": 60,
    "cut": 30,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_never_gives_another_journal(kind: str) -> None:
    command = [sys.executable, "-m", "tests.raft.damage_run", str(SEED), str(KINDS[kind]), kind]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280)
    tally = json.loads(ran.stdout)
    print(f"seed {SEED}: {tally}")
    assert tally["bad"] == [], ran.stderr
    assert tally["stopped"] <= KINDS[kind] // 30
    assert tally["damaged"] > KINDS[kind] // 10  # else the damage was where nobody reads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal that was used: about 35 pages."""
    place = tmp_path / "raft"
    RaftJournal.format(place, "c1", 7, founding=True)
    journal = RaftJournal.open(place)
    for index in range(2, 100):
        journal.add(b"\0x" * 200, index, 1)
        journal.setCurrentTerm(1, 7)
        if index % 20 == 0:
            journal.sync()
    journal.store_snapshot(StoredSnapshot(90, 1, b"state"), keep_from=10)
    journal.close()
    return place


def used_bytes(path: Path) -> int:
    """To the end of the last page that is in use."""
    with lmdb.open(str(path), readonly=True) as environment:
        return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


@pytest.mark.parametrize("size", [0, 100, 4_096, 8_192, 20_000, 30_000, 40_000, 49_653, -4_096, -1])
def test_a_file_that_was_cut_short_is_refused_and_left_alone(path: Path, size: int) -> None:
    file = path / datafile.DATA_FILE
    os.truncate(file, size if size >= 0 else used_bytes(path) + size)
    before = file.read_bytes()
    with pytest.raises(errors.DamagedJournalError, match=r"cut short.*format --join.*Never --new-cluster"):
        RaftJournal.open(path)
    assert file.read_bytes() == before


def test_only_reserve_was_cut_off_and_is_allocated_again(path: Path) -> None:
    file = path / datafile.DATA_FILE
    os.truncate(file, used_bytes(path))
    journal = RaftJournal.open(path)
    assert len(journal) == 90
    journal.close()
    assert file.stat().st_blocks * 512 >= datafile.RESERVE_BYTES


def test_the_file_stays_ahead_of_its_pages(path: Path) -> None:
    """A healthy file never ends before its last page, which LMDB itself does not promise."""
    journal = RaftJournal.open(path)
    journal.add(b"\0" + bytes(datafile.RESERVE_BYTES), journal.last_index + 1, 1)
    journal.close()
    assert (path / datafile.DATA_FILE).stat().st_size >= used_bytes(path) + datafile.AHEAD_BYTES // 2
    RaftJournal.open(path).close()


def test_without_an_identity_it_is_damaged_not_unformatted(path: Path) -> None:
    """Whoever formats it again as a founding voter lets it vote twice."""
    with lmdb.open(str(path), max_dbs=2, map_size=1 << 33) as environment:
        for name in datafile.DATABASES:
            with environment.begin(write=True) as transaction:
                transaction.drop(environment.open_db(name, transaction), delete=True)
    with pytest.raises(errors.DamagedJournalError, match="Never --new-cluster"):
        RaftJournal.open(path)


def test_formatting_that_was_cut_off_leaves_nothing_and_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raft"

    def power_fails(*_: object) -> None:
        raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", power_fails)
        with pytest.raises(errors.JournalWriteError, match="no power"):
            RaftJournal.format(path, "c1", 7, founding=True)
    with pytest.raises(errors.NotFormattedError):
        RaftJournal.open(path)
    RaftJournal.format(path, "c1", 7, founding=True)
    RaftJournal.open(path, 7, "c1").close()


def test_a_file_whose_lock_is_left_alone_was_in_use(path: Path) -> None:
    (path / datafile.DATA_FILE).unlink()
    with pytest.raises(errors.NotFormattedError, match="use --join"):
        RaftJournal.open(path)
    with pytest.raises(errors.AlreadyFormattedError):
        RaftJournal.format(path, "c1", 7, founding=True)


def test_damage_that_a_write_meets_is_told_as_damage(path: Path) -> None:
    heads = 2 * 4096
    pages = used_bytes(path) - heads
    journal = RaftJournal.open(path)
    with (path / datafile.DATA_FILE).open("r+b") as file:
        file.seek(heads)
        file.write(bytes(pages))
    journal.setCurrentTerm(5, 1)
    with pytest.raises(errors.DamagedJournalError, match="format --join"):
        journal.sync()
    journal.abandon()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file may be written behind this."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_disk_that_does_not_write_is_no_damage(path: Path) -> None:
    journal = RaftJournal.open(path)
    journal.setCurrentTerm(5, 1)
    with files_end_at(8192), pytest.raises(errors.JournalWriteError, match="Free space or mend the disk"):
        journal.sync()
    journal.abandon()
    RaftJournal.open(path).close()


def test_entries_that_are_not_where_they_were_stop_the_next_commit(path: Path) -> None:
    """Rows that LMDB has lost sight of: what follows them would be a log with a gap."""
    journal = RaftJournal.open(path)
    with journal._disk._environment.begin(write=True) as transaction:  # type: ignore[attr-defined]  # the one in LMDB
        transaction.delete((99).to_bytes(8, "big"), db=journal._disk._log)  # type: ignore[attr-defined]
    journal.add(b"\0x", 100, 1)
    with pytest.raises(errors.DamagedJournalError, match="end before 99, where they should before 100"):
        journal.sync()
    journal.abandon()


def test_a_data_file_of_an_earlier_commit_is_refused(path: Path, tmp_path: Path) -> None:
    """It would have forgotten a vote."""
    earlier = tmp_path / "earlier"
    shutil.copy(path / datafile.DATA_FILE, earlier)
    journal = RaftJournal.open(path)
    journal.setCurrentTerm(9, 3)
    journal.close()
    latest = (path / datafile.DATA_FILE).read_bytes()
    shutil.copy(earlier, path / datafile.DATA_FILE)
    with pytest.raises(errors.DamagedJournalError, match="there was a commit"):
        RaftJournal.open(path)
    (path / datafile.DATA_FILE).write_bytes(latest)
    journal = RaftJournal.open(path)
    assert journal.getVotedForNodeId() == 3
    journal.close()


@pytest.mark.parametrize("bit", [0, *range(2, 64)])
def test_heads_that_do_not_fit_are_refused_without_a_note_too(path: Path, bit: int) -> None:
    """Power may have taken the note: then only bit 1 of the newer head's number could pass."""
    (path / datafile.LOCK_FILE).write_bytes(b"")
    for head in (0, 4096):
        with (path / datafile.DATA_FILE).open("r+b") as file:
            file.seek(head + COMMIT_AT + bit // 8)
            former = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([former ^ 1 << bit % 8]))
        with pytest.raises(errors.DamagedJournalError, match="heads"):
            RaftJournal.open(path)
        with (path / datafile.DATA_FILE).open("r+b") as file:
            file.seek(head + COMMIT_AT + bit // 8)
            file.write(bytes([former]))


def test_a_page_that_hides_its_last_entry_is_refused(path: Path) -> None:
    """What was acknowledged is not in the log any more, and what is left is in order."""
    data, last = bytearray((path / datafile.DATA_FILE).read_bytes()[: used_bytes(path)]), (99).to_bytes(8, "big")
    for page in range(0, len(data), 4096):
        flags, lower = struct.unpack_from("<HH", data, page + 10)
        if flags == LEAF and lower > 16:
            node = page + struct.unpack_from("<H", data, page + lower - 2)[0]
            if data[node + 8 : node + 16] == last:
                struct.pack_into("<H", data, page + 12, lower - 2)
    with (path / datafile.DATA_FILE).open("r+b") as file:
        file.write(data)
    with pytest.raises(errors.DamagedJournalError, match="90 entries from 10 to 98"):
        RaftJournal.open(path)


def test_a_record_that_nobody_knows_is_refused(path: Path) -> None:
    """They are counted, since a page can hide one: the founding configuration, for instance."""
    with lmdb.open(str(path), max_dbs=2, map_size=1 << 33) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"other", b"", db=environment.open_db(b"meta", transaction))
    with pytest.raises(errors.DamagedJournalError, match="records of"):
        RaftJournal.open(path)


def test_pages_of_an_earlier_commit_are_refused(path: Path) -> None:
    """Intact records, under a newer head."""
    with lmdb.open(str(path), max_dbs=2, map_size=1 << 33) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"other", b"", db=environment.open_db(b"log", transaction))
        transaction.delete(b"other", db=environment.open_db(b"log", transaction))
    with pytest.raises(errors.DamagedJournalError, match="records are of commit"):
        RaftJournal.open(path)


def test_a_journal_of_a_version_that_noted_no_commits_is_taken(path: Path) -> None:
    with lmdb.open(str(path), max_dbs=2, map_size=1 << 33) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"commit", db=environment.open_db(b"meta", transaction))
    (path / datafile.LOCK_FILE).write_bytes(b"")
    journal = RaftJournal.open(path)
    before = content(journal)
    journal.setCurrentTerm(2, None)
    journal.close()
    assert before.startswith("(Identity(cluster_id='c1', node_id=7")
    RaftJournal.open(path).close()
