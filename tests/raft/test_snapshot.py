"""Snapshots: the frame, its way in chunks, and a follower that gets one."""

import itertools
import random

import pytest

from penstock.raft.errors import DamagedJournalError
from penstock.raft.journal import RaftJournal, StoredSnapshot
from penstock.raft.membership import Membership
from penstock.raft.snapshot import Chunk, Frame, Receiving, Sending
from tests.raft import mutants
from tests.raft.small import Bench

FRAME = Frame(7, 2, Membership.of({1: "a:1", 2: "b:2"}), random.Random(1).randbytes(1000))


def send(sending: Sending, drop: float = 0.0) -> StoredSnapshot:
    """Send in chunks over a lossy way, asking again whenever an answer is late."""
    rng, receiving, position, now = random.Random(5), None, None, 0.0
    while True:
        now += 1.0
        chunk = sending.next(position, now)
        position = None
        if rng.random() < drop:
            continue
        receiving = receiving or Receiving(1, chunk)
        received = receiving.add(chunk)
        if snapshot := receiving.complete():
            return snapshot
        if rng.random() >= drop and sending.is_answer(chunk.index, chunk.sequence):
            position = received


@pytest.mark.parametrize("drop", [0.0, 0.3])
@pytest.mark.parametrize("chunk_bytes", [1, 64, 10_000])
def test_a_frame_arrives_in_chunks(chunk_bytes: int, drop: float) -> None:
    snapshot = send(Sending(FRAME.encode(), chunk_bytes), drop)
    assert Frame.decode(snapshot) == FRAME


def test_only_the_latest_answer_moves_on() -> None:
    sending = Sending(FRAME.encode(), 64)
    first = sending.next(None, 0.0)
    second = sending.next(None, 1.0)
    assert not sending.is_answer(first.index, first.sequence)
    assert not sending.is_due(1.1, 0.5)
    assert sending.is_answer(second.index, second.sequence)
    assert not sending.is_answer(second.index, second.sequence)


def test_a_damaged_chunk_is_dropped_and_a_damaged_whole_is_an_error() -> None:
    frame = FRAME.encode()
    chunk = Sending(frame, 100).next(0, 0.0)
    receiving = Receiving(1, chunk)
    damaged = Chunk(chunk.index, chunk.term, chunk.size, chunk.crc, 0, b"x" * 100, chunk.data_crc, 1)
    assert receiving.add(damaged) == 0
    assert receiving.add(chunk) == 100
    whole = Sending(frame, 10_000).next(0, 0.0)
    wrong = Chunk(whole.index, whole.term, whole.size, whole.crc ^ 1, 0, whole.data, whole.data_crc, 1)
    receiving = Receiving(1, wrong)
    receiving.add(wrong)
    with pytest.raises(DamagedJournalError, match="CRC"):
        receiving.complete()


def test_another_frame_or_sender_begins_anew() -> None:
    chunk = Sending(FRAME.encode(), 100).next(0, 0.0)
    receiving = Receiving(1, chunk)
    assert receiving.is_of(1, chunk)
    assert not receiving.is_of(2, chunk)


@pytest.mark.parametrize(
    "stored",
    [
        StoredSnapshot(7, 2, b"\xff garbage"),
        StoredSnapshot(8, 2, FRAME.encode().frame),
        StoredSnapshot(7, 2, b""),
    ],
)
def test_a_frame_that_is_not_what_it_says_is_an_error(stored: StoredSnapshot) -> None:
    with pytest.raises(DamagedJournalError):
        Frame.decode(stored)


def behind(patch: pytest.MonkeyPatch, journal: type[RaftJournal] = RaftJournal) -> Bench:
    """Three nodes, of which the third missed more than the log holds."""
    bench = Bench(patch)
    bench.options = {"snapshot_entries": 5, "snapshot_tail": 0, "chunk_bytes": 16}
    bench.start(1, 2, 3)
    bench.elect(1)
    bench.isolate(3)
    for number in range(40):
        bench.peers[1].submit(b"%d" % number)
        bench.deliver()
    return bench


def test_a_follower_behind_the_log_gets_a_snapshot_and_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = behind(monkeypatch)
    term = bench.peers[3].machine.raftCurrentTerm
    bench.rejoin(3)
    bench.run(2)
    assert bench.peers[3].recorder.commands == bench.peers[1].recorder.commands
    assert bench.peers[3].machine.raftCurrentTerm >= term


def test_a_superseded_snapshot_does_not_hold_a_follower_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader takes a newer snapshot while the older one is on its way (found by the simulator)."""
    bench = behind(monkeypatch)
    bench.rejoin(3)
    for number in range(40):
        bench.peers[1].submit(b"more %d" % number)
        for _ in range(3):  # not all of the chunks
            for peer in list(bench.peers.values()):
                for _ in range(min(1, len(peer.sent))):
                    receiver, message = peer.sent.popleft()
                    bench.peers[receiver].receive(peer.id, message)
    bench.run(2)
    assert bench.peers[3].recorder.commands == bench.peers[1].recorder.commands


def test_an_answer_to_a_former_attempt_does_not_move_the_next_one() -> None:
    """It may still be under way when the leader's own stream was opened again (found by the consensus worlds)."""
    sequences = itertools.count(1)
    former = Sending(FRAME.encode(), 64, sequences).next(None, 0.0)
    present = Sending(FRAME.encode(), 64, sequences)
    present.next(None, 0.0)
    assert not present.is_answer(former.index, former.sequence)


def test_a_damaged_snapshot_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = behind(monkeypatch)
    snapshot = bench.disks[1].snapshot
    assert snapshot is not None
    bench.disks[1].snapshot = StoredSnapshot(snapshot.index, snapshot.term, b"\xff" + snapshot.frame)
    with pytest.raises(DamagedJournalError):
        bench.start(1)


@pytest.mark.parametrize("journal", [RaftJournal, mutants.TailDroppedJournal])
def test_entries_behind_a_received_snapshot_stay(journal: type[RaftJournal], monkeypatch: pytest.MonkeyPatch) -> None:
    """They were acknowledged, and may be what makes them committed."""
    bench = Bench(monkeypatch)
    bench.start(1)
    log = journal(bench.disks[1])
    for index in range(2, 10):
        log.add(b"\0x", index, 0)
    log.install_snapshot(StoredSnapshot(5, 0, b""))
    kept = log.last_index == 9
    assert kept == (journal is RaftJournal)
