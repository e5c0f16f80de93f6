"""Changes of the voters: one at a time, in force as soon as in the log, and never a majority too many or too few."""

import pytest
from pysyncobj import FAIL_REASON

from penstock.raft.core import MEMBERSHIP
from penstock.raft.machine import RaftMachine, Received
from penstock.raft.membership import Change, Membership, Voter
from tests.raft import mutants
from tests.raft.small import Bench, Peer
from tests.simulation.consensus.disk import MemoryDisk

Patch = pytest.MonkeyPatch


def add(leader: Peer, node_id: int, journal_id: bytes) -> None:
    leader.submit(Change(adding=True, voter=Voter(node_id, f"n{node_id}", journal_id)).encode(), MEMBERSHIP)


def remove(leader: Peer, node_id: int) -> None:
    leader.submit(Change(adding=False, voter=Voter(node_id, "")).encode(), MEMBERSHIP)


def single_with_observer(patch: Patch, machine: type[RaftMachine] = RaftMachine) -> tuple[Bench, Peer, Peer]:
    bench = Bench(patch, machine, count=1)
    bench.start(1)
    leader = bench.elect(1)
    bench.start(2, founding=False)
    bench.run(0.5)
    return bench, leader, bench.peers[2]


def test_an_observer_gets_the_log_and_counts_for_nothing(monkeypatch: Patch) -> None:
    bench, leader, observer = single_with_observer(monkeypatch)
    leader.submit(b"one")
    bench.run(0.3)
    assert observer.recorder.commands == [b"one"]
    bench.isolate(2)
    bench.run(3)
    assert leader.machine._isLeader()
    assert observer.machine.raftCurrentTerm == leader.machine.raftCurrentTerm


def test_an_added_voter_is_admitted_and_needed(monkeypatch: Patch) -> None:
    bench, leader, observer = single_with_observer(monkeypatch)
    before = bool(observer.machine.may_vote)
    add(leader, 2, observer.journal.identity.journal_id)
    bench.run(0.3)
    assert (before, observer.machine.may_vote) == (False, True)
    bench.isolate(2)
    leader.submit(b"alone")
    bench.run(0.3)
    assert b"alone" not in leader.recorder.commands


def test_a_voter_added_under_another_journal_is_not_admitted(monkeypatch: Patch) -> None:
    bench, leader, observer = single_with_observer(monkeypatch)
    add(leader, 2, b"another journal")
    bench.run(0.3)
    assert not observer.journal.may_vote


def test_an_added_voter_is_heard_even_if_it_lost_the_entry(monkeypatch: Patch) -> None:
    """One voter and one added: without the second's vote nobody could lead again."""
    bench, leader, observer = single_with_observer(monkeypatch)
    journal_id = observer.journal.identity.journal_id
    bench.cut |= {(1, 2), (2, 1)}
    add(leader, 2, journal_id)
    bench.cut.clear()
    for peer in bench.peers.values():
        peer.sent.clear()
    bench.start(1)
    bench.start(2, founding=False)
    bench.run(3)
    assert bench.peers[1].machine._isLeader()
    assert bench.peers[2].journal.may_vote


def test_a_voter_back_with_an_empty_journal_is_filled_from_the_start(monkeypatch: Patch) -> None:
    """What its former journal acknowledged in this very term is forgotten with its membership (rule 27)."""
    bench = Bench(monkeypatch)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    leader.submit(b"before")
    bench.run(0.3)
    bench.isolate(3)
    bench.disks[3] = MemoryDisk(3, b"new journal", founding=False)
    bench.start(3)
    bench.rejoin(3)
    bench.run(0.5)
    remove(leader, 3)
    bench.run(0.5)
    returned = bench.peers[3]
    assert returned.recorder.commands == [b"before"]
    add(leader, 3, b"new journal")
    bench.run(0.3)
    assert returned.journal.may_vote


def former_journal_votes(patch: Patch, machine: type[RaftMachine]) -> None:
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    former = bench.disks.pop(3)
    remove(leader, 3)
    bench.run(0.3)
    bench.disks[3] = MemoryDisk(3, b"new journal of 3", founding=False)
    bench.isolate(3)
    bench.start(3)
    bench.rejoin(3)
    bench.run(0.5)
    add(leader, 3, b"new journal of 3")
    bench.run(0.5)
    assert bench.peers[3].journal.may_vote
    bench.disks[3] = former
    bench.start(3)
    asks = {"type": "request_vote", "term": 9, "last_log_index": 99, "last_log_term": 9}
    bench.peers[3].receive(2, asks | {"journal_id": b"new journal of 3"})
    assert not [message for _, message in bench.peers[3].sent if message["type"] == "response_vote"]


def test_a_journal_that_was_lost_and_is_put_back_casts_no_vote(monkeypatch: Patch) -> None:
    """What its successor voted and acknowledged is not in it (rule 27). Found by the consensus worlds, seed 164."""
    former_journal_votes(monkeypatch, RaftMachine)
    with pytest.raises(AssertionError):
        former_journal_votes(monkeypatch, mutants.FormerJournalVotes)


def test_a_hand_over_ends_with_its_term(monkeypatch: Patch) -> None:
    bench = Bench(monkeypatch)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    bench.run(0.3)
    asked, term = bench.peers[2], leader.machine.raftCurrentTerm
    place = {"last_log_index": 99, "last_log_term": term, "journal_id": b""}
    asked.round(
        Received(1, {"type": "timeout_now", "term": term}),
        Received(3, {"type": "request_vote", "term": term + 1, **place}),
    )
    bench.cut |= {(1, 2), (2, 1), (3, 2), (2, 3)}  # connected, but nobody's pre-vote arrives
    bench.run(3)
    assert asked.machine.raftCurrentTerm == term + 1


def test_only_a_caught_up_observer_is_added(monkeypatch: Patch) -> None:
    bench, leader, observer = single_with_observer(monkeypatch)
    bench.isolate(2)
    add(leader, 2, observer.journal.identity.journal_id)
    add(leader, 9, b"unknown node")
    assert leader.answers == [(None, FAIL_REASON.REQUEST_DENIED)] * 2


def test_a_change_waits_for_the_no_op_of_the_leader(monkeypatch: Patch) -> None:
    bench = Bench(monkeypatch)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    leader.machine._SyncObj__noopIDx = leader.machine.raftLastApplied + 1
    remove(leader, 3)
    assert leader.answers == [(None, FAIL_REASON.REQUEST_DENIED)]


def test_a_leader_does_not_remove_itself(monkeypatch: Patch) -> None:
    bench = Bench(monkeypatch)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    remove(leader, 1)
    assert leader.answers == [(None, FAIL_REASON.REQUEST_DENIED)]


def test_a_change_that_is_cut_off_is_undone(monkeypatch: Patch) -> None:
    bench = Bench(monkeypatch)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    bench.isolate(1)
    remove(leader, 3)
    assert set(leader.machine.membership.addresses) == {1, 2}
    bench.elect(2)
    bench.rejoin(1)
    bench.run(1)
    assert set(leader.machine.membership.addresses) == {1, 2, 3}


def snapshot_configuration(patch: Patch, machine: type[RaftMachine]) -> None:
    bench = Bench(patch, machine)
    bench.options = {"snapshot_entries": 5, "snapshot_tail": 0}
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    remove(leader, 3)
    for number in range(20):
        leader.submit(b"%d" % number)
        bench.deliver()
    bench.start(1)
    assert bench.peers[1].journal[0].index > 5
    assert set(bench.peers[1].machine.membership.addresses) == {1, 2}


def test_a_snapshot_holds_the_configuration(monkeypatch: Patch) -> None:
    snapshot_configuration(monkeypatch, RaftMachine)
    with pytest.raises(AssertionError):
        snapshot_configuration(monkeypatch, mutants.SnapshotWithoutMembership)


@pytest.mark.parametrize("data", [b"", b"garbage", Change(adding=True, voter=Voter(0, "")).encode()])
def test_garbage_is_no_change(data: bytes) -> None:
    with pytest.raises(ValueError, match="change"):
        Change.decode(data)


def test_configurations_and_changes_survive_encoding() -> None:
    membership = Membership((Voter(1, "a:1"), Voter(2, "b:2", b"journal")))
    assert Membership.decode(membership.encode()) == membership
    change = Change(adding=True, voter=Voter(3, "c:3", b"j"))
    assert Change.decode(change.encode()) == change
    assert membership.after(change).addresses == {1: "a:1", 2: "b:2", 3: "c:3"}
    assert membership.after(Change(adding=False, voter=Voter(2, ""))).addresses == {1: "a:1"}
