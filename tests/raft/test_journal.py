"""The journal in LMDB: what was synced is there after a restart, nothing else is, and damage is an error."""

import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.internal.v1 import raft_pb2
from penstock.raft import errors
from penstock.raft.disk import LmdbDisk, _sealed
from penstock.raft.journal import NO_OP, Entry, RaftJournal, StoredSnapshot
from tests.raft import mutants
from tests.raft.small import Bench
from tests.simulation.consensus.disk import MemoryDisk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "raft"
    RaftJournal.format(place, "c1", 7, founding=True)
    return place


def _write(path: Path, key: bytes, value: bytes | None, db: bytes = b"meta") -> bytes | None:
    """Change a record behind the journal's back (None: delete it), in a commit that calls itself by its number."""
    with lmdb.open(str(path), max_dbs=2, map_size=1 << 33) as environment:
        place, meta = environment.open_db(db), environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            former: bytes | None = transaction.pop(key, db=place)
            transaction.put(b"commit", _sealed(b"commit", transaction.id().to_bytes(8, "big")), db=meta)
            if value is not None:
                transaction.put(key, value, db=place)
    return former


def test_what_was_synced_is_there_again_and_what_was_not_is_not(path: Path) -> None:
    journal = RaftJournal.open(path, 7)
    journal.add(b"\0two", 2, 1)
    journal.setCurrentTerm(3, 2)
    journal.setRaftCommitIndex(2)
    journal.sync()
    journal.add(b"\0three", 3, 3)
    journal.abandon()
    journal = RaftJournal.open(path, 7, "c1")
    assert journal[:] == [Entry(NO_OP, 1, 0), Entry(b"\0two", 2, 1)]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.getRaftCommitIndex()) == (3, 2, 2)
    assert journal.identity.cluster_id == "c1"
    assert len(journal.identity.journal_id) == 16
    journal.close()


def test_the_commit_index_is_clamped_to_the_log(path: Path) -> None:
    journal = RaftJournal.open(path)
    journal.setCurrentTerm(1, None)
    journal.setRaftCommitIndex(50)
    journal.close()
    journal = RaftJournal.open(path)
    assert journal.getRaftCommitIndex() == 1
    journal.close()


def test_a_snapshot_and_its_truncation_are_one(path: Path) -> None:
    journal = RaftJournal.open(path)
    for index in range(2, 11):
        journal.add(b"\0%d" % index, index, 1)
    journal.setCurrentTerm(1, None)
    journal.sync()
    journal.store_snapshot(StoredSnapshot(8, 1, b"state"), keep_from=5)
    journal.abandon()
    journal = RaftJournal.open(path)
    assert (journal.snapshot, journal[0].index) == (None, 1)
    journal.store_snapshot(StoredSnapshot(8, 1, b"state"), keep_from=5)
    journal.close()
    journal = RaftJournal.open(path)
    assert journal.snapshot == StoredSnapshot(8, 1, b"state")
    assert [entry.index for entry in journal[:]] == [5, 6, 7, 8, 9, 10]
    journal.close()


@pytest.mark.parametrize(("term", "kept"), [(1, [1, 2, 3, 4]), (2, [3])])
def test_a_received_snapshot_keeps_the_tail_only_where_the_log_matches(path: Path, term: int, kept: list[int]) -> None:
    journal = RaftJournal.open(path)
    for index in range(2, 5):
        journal.add(b"\0x", index, 1)
    journal.setCurrentTerm(2, None)
    journal.sync()
    journal.install_snapshot(StoredSnapshot(3, term, b"s"))
    journal.close()
    journal = RaftJournal.open(path)
    assert [entry.index for entry in journal[:]] == kept
    journal.close()


def test_formatted_to_join_it_may_not_vote_until_admitted(tmp_path: Path) -> None:
    path = tmp_path / "raft"
    RaftJournal.format(path, "c1", 7, founding=False)
    journal = RaftJournal.open(path)
    assert not journal.may_vote
    journal.close()
    journal = RaftJournal.open(path)
    assert not journal.may_vote
    journal.admit()
    journal.abandon()
    journal = RaftJournal.open(path)
    assert journal.may_vote
    journal.close()


def test_each_journal_has_an_id_of_its_own(tmp_path: Path) -> None:
    ids = {RaftJournal.format(tmp_path / str(n), "c", 1, founding=True).journal_id for n in range(2)}
    assert len(ids) == 2


def test_errors_say_what_is_wrong(path: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFormattedError, match=r"penstockd format.*has run before.*--join"):
        RaftJournal.open(tmp_path / "nothing")
    with pytest.raises(errors.AlreadyFormattedError, match="not empty"):
        RaftJournal.format(path, "c1", 7, founding=True)
    with pytest.raises(errors.ForeignJournalError, match="node 7, not to node 8"):
        RaftJournal.open(path, 8)
    with pytest.raises(errors.ForeignJournalError, match="cluster 'c1'"):
        RaftJournal.open(path, 7, "c2")


def test_a_newer_format_is_refused(path: Path) -> None:
    record = raft_pb2.JournalIdentity(format=2, cluster_id="c1", node_id=7).SerializeToString()
    disk = LmdbDisk.open(path, None, None)
    with disk._environment.begin(write=True) as transaction:
        disk._put(transaction, b"identity", record)
    disk.close()
    with pytest.raises(errors.NewerFormatError, match="format 2"):
        RaftJournal.open(path)


def test_a_second_process_is_kept_out(path: Path) -> None:
    journal = RaftJournal.open(path)
    program = "import pathlib, sys, penstock.raft.journal as j; j.RaftJournal.open(pathlib.Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "JournalLockedError" in other.stderr
    assert "in use by another process" in other.stderr
    with pytest.raises(errors.JournalLockedError):
        RaftJournal.open(path)
    journal.close()


@pytest.mark.parametrize("key", [b"state", b"identity", b"commit", b"snapshot", b"membership"])
def test_a_damaged_record_is_an_error(path: Path, key: bytes) -> None:
    _write(path, key, b"\0\0\0\0damaged")
    with pytest.raises(errors.DamagedJournalError, match="CRC"):
        RaftJournal.open(path)


def test_a_damaged_entry_and_a_gap_are_errors(path: Path) -> None:
    journal = RaftJournal.open(path)
    for index in range(2, 6):
        journal.add(b"\0x", index, 1)
    journal.setCurrentTerm(1, None)
    journal.close()
    kept = _write(path, (3).to_bytes(8, "big"), None, b"log")
    assert kept is not None
    with pytest.raises(errors.DamagedJournalError, match="4 entries from 1 to 5"):
        RaftJournal.open(path)
    _write(path, (3).to_bytes(8, "big"), kept[:-1] + b"y", b"log")
    with pytest.raises(errors.DamagedJournalError, match="entry 3"):
        RaftJournal.open(path)


def test_no_lmdb_file_at_all_is_damage(path: Path) -> None:
    (path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(errors.DamagedJournalError, match="LMDB"):
        RaftJournal.open(path)


def test_room_is_reserved_on_the_file_system(path: Path) -> None:
    assert (path / "data.mdb").stat().st_blocks * 512 >= 64 * 1024**2


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 5)),
        st.tuples(st.just("cut"), st.integers(0, 6)),
        st.tuples(st.just("term"), st.integers(0, 3)),
        st.tuples(st.just("snapshot"), st.integers(0, 4)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=30,
)


def _step(journal: RaftJournal, step: str, number: int) -> None:
    if step == "add":
        for _ in range(number):
            journal.add(b"\0%d" % journal.last_index, journal.last_index + 1, journal.getCurrentTerm())
    elif step == "cut":
        low = journal.snapshot.index if journal.snapshot else 1
        keep = max(low, journal.last_index - number) - journal[0].index + 1
        journal.deleteEntriesFrom(keep)
    elif step == "term":
        journal.setCurrentTerm(journal.getCurrentTerm() + number, number or None)
    elif step == "snapshot" and journal.last_index > (journal.snapshot.index if journal.snapshot else 1):
        last = journal[-1]
        journal.store_snapshot(StoredSnapshot(last.index, last.term, b"s"), last.index - number)
    elif step == "sync":
        journal.sync()


@settings(max_examples=40, deadline=None)
@given(steps=_STEPS)
def test_both_disks_hold_the_same(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    """The simulator's disk behaves as the one in LMDB, through any history with crashes."""
    path = tmp_path_factory.mktemp("journal") / "raft"
    identity = LmdbDisk.format(path, "simulated", 1, founding=True, reserve=0)
    fake = MemoryDisk(1, identity.journal_id, founding=True)
    real = RaftJournal(LmdbDisk.open(path, None, None, reserve=0))
    model = RaftJournal(fake)
    for step, number in [*steps, ("sync", 0), ("crash", 0)]:
        if step == "crash":
            real.abandon()
            real, model = RaftJournal(LmdbDisk.open(path, None, None, reserve=0)), RaftJournal(fake)
            assert real[:] == model[:]
            assert (real._state, real.snapshot) == (model._state, model.snapshot)
        else:
            _step(real, step, number)
            _step(model, step, number)
    real.close()


@pytest.mark.parametrize("journal", [RaftJournal, mutants.ForgetfulJournal])
def test_a_vote_outlives_the_process(journal: type[RaftJournal], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.journal = journal
    bench.start(1, 2, 3)
    question = {"type": "request_vote", "term": 5, "last_log_index": 9, "last_log_term": 4, "journal_id": b""}
    bench.peers[1].receive(2, dict(question))
    assert [message["type"] for _, message in bench.peers[1].sent] == ["response_vote"]
    bench.start(1)
    bench.peers[1].receive(3, dict(question))
    votes_again = bool(bench.peers[1].sent)
    assert votes_again == (journal is mutants.ForgetfulJournal)
