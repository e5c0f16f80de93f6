"""Each override of pysyncobj is needed: a test passes with RaftMachine and fails with the override switched off.

The scenarios are functions of the machine's class. `SIMULATED` are caught by the simulator instead, within some seeds.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from pysyncobj import FAIL_REASON

from penstock.raft.core import COMMAND, MEMBERSHIP
from penstock.raft.machine import Connected, Disconnected, RaftMachine, Received, Submission, Transfer
from penstock.raft.membership import Change, Voter
from tests.raft import mutants
from tests.raft.small import Bench
from tests.simulation.consensus.world import Options, World

Patch = pytest.MonkeyPatch
Scenario = Callable[[Patch, type[RaftMachine]], None]


def _candidate(patch: Patch, machine: type[RaftMachine]) -> tuple[Bench, Any]:
    bench = Bench(patch, machine, count=5)
    bench.start(1, 2, 3, 4, 5)
    candidate = bench.peers[1].machine
    candidate._may_campaign = True
    candidate._SyncObj__raftElectionDeadline = float("-inf")
    bench.peers[1].round()
    assert candidate.raftCurrentTerm == 1
    return bench, candidate


def double_vote(patch: Patch, machine: type[RaftMachine]) -> None:
    """Two answers of one voter are one vote."""
    bench, candidate = _candidate(patch, machine)
    for _ in range(3):
        bench.peers[1].receive(2, {"type": "response_vote", "term": 1})
    assert not candidate._isLeader()
    bench.peers[1].receive(3, {"type": "response_vote", "term": 1})
    assert candidate._isLeader()


def foreign_vote(patch: Patch, machine: type[RaftMachine]) -> None:
    """Who is no voter has no vote."""
    bench, candidate = _candidate(patch, machine)
    for stranger in (7, 8, 9):
        bench.peers[1].receive(stranger, {"type": "response_vote", "term": 1})
    assert not candidate._isLeader()


def late_ack(patch: Patch, machine: type[RaftMachine]) -> None:
    """An acknowledgement of an earlier term does not count in a later one."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    term = leader.machine.raftCurrentTerm
    last = leader.journal.last_index
    bench.elect(2)
    leader = bench.elect(1)
    bench.isolate(1)
    leader.submit(b"only here")
    late = {"type": "next_node_idx", "term": term, "success": True, "reset": False}
    leader.receive(2, late | {"next_node_idx": leader.journal.last_index + 1})
    leader.round()
    assert leader.machine.raftCommitIndex < leader.journal.last_index
    assert leader.journal.last_index > last


def stuck_follower(patch: Patch, machine: type[RaftMachine]) -> None:
    """Late refusals with a higher place do not move a probe forwards again."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    for number in range(5):
        leader.submit(b"%d" % number)
    leader.sent.clear()
    refusal = {"type": "next_node_idx", "term": leader.machine.raftCurrentTerm, "success": False, "reset": True}
    match = next(value for node, value in leader.machine._SyncObj__raftMatchIndex.items() if node.id == 2)
    leader.receive(2, refusal | {"next_node_idx": match + 1})
    leader.sent.clear()
    leader.receive(2, refusal | {"next_node_idx": match + 4})
    bench.now += 0.2
    leader.round()
    sent = [message for receiver, message in leader.sent if receiver == 2 and message["type"] == "append_entries"]
    assert any(message["prevLogIdx"] == match for message in sent)


def returning_node(patch: Patch, machine: type[RaftMachine]) -> None:
    """A node that was cut off does not depose a healthy leader when it is back."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    term = leader.machine.raftCurrentTerm
    bench.isolate(3)
    bench.peers[3].round(Connected(2))  # it believes to reach somebody, so that it stands for election
    bench.run(5)
    bench.rejoin(3)
    bench.run(3)
    assert leader.machine._isLeader()
    assert leader.machine.raftCurrentTerm == term


def stale_leader(patch: Patch, machine: type[RaftMachine]) -> None:
    """A node of a higher term makes the leader take it in."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    bench.peers[3].machine._SyncObj__setCurrentTerm(7, None)
    bench.run(5)
    terms = {peer.machine.raftCurrentTerm for peer in bench.peers.values()}
    assert len(terms) == 1
    assert terms.pop() >= 7
    assert leader.machine.leader is not None


def forward_disconnect(patch: Patch, machine: type[RaftMachine]) -> None:
    """Who waits for a leader's word hears when the leader is gone."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    bench.elect(1)
    follower = bench.peers[2]
    follower.submit(b"forwarded")
    assert follower.answers == []
    follower.round(Disconnected(1))
    assert follower.answers == [(None, FAIL_REASON.LEADER_CHANGED)]


def forward_unsent(patch: Patch, machine: type[RaftMachine]) -> None:
    """A forwarded command that cannot leave is refused, definitely."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    bench.elect(1)
    follower = bench.peers[2]
    follower.full = True
    follower.submit(b"forwarded")
    assert follower.answers == [(None, FAIL_REASON.MISSING_LEADER)]


def apply_error(patch: Patch, machine: type[RaftMachine]) -> None:
    """An error in apply stops the node: it leaves the round."""
    bench = Bench(patch, machine, count=1)
    bench.start(1)
    leader = bench.elect(1)
    leader.recorder.fails = MemoryError()
    leader.submit(b"too large")
    with pytest.raises(MemoryError):
        leader.round()


def callback_error(patch: Patch, machine: type[RaftMachine]) -> None:
    """An error in a waiter's callback does not apply the entry again."""

    def callback(*_: object) -> None:
        raise RuntimeError

    bench = Bench(patch, machine, count=1)
    bench.start(1)
    leader = bench.elect(1)
    leader.round(Submission(COMMAND + b"once", callback))
    for _ in range(2):
        with contextlib.suppress(RuntimeError):
            leader.round()
    assert leader.recorder.commands == [b"once"]


def two_changes(patch: Patch, machine: type[RaftMachine]) -> None:
    """A second change of the configuration waits for the first."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    for voter in (2, 3):
        leader.submit(Change(adding=False, voter=Voter(voter, "")).encode(), MEMBERSHIP)
    assert leader.answers == [(None, FAIL_REASON.REQUEST_DENIED)]
    assert set(leader.machine.membership.addresses) == {1, 3}


def change_after_restart(patch: Patch, machine: type[RaftMachine]) -> None:
    """A change in the log, committed or not, is in force again right after a restart."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    leader.submit(Change(adding=False, voter=Voter(3, "")).encode(), MEMBERSHIP)
    bench.start(1)
    assert set(bench.peers[1].machine.membership.addresses) == {1, 2}


def joined_voter_votes(patch: Patch, machine: type[RaftMachine]) -> None:
    """Rule 27: a voter that comes back with a new journal neither votes nor stands."""
    bench = Bench(patch, machine)
    bench.start(1, 2)
    bench.start(3, founding=False)
    bench.peers[3].receive(
        2, {"type": "request_vote", "term": 5, "last_log_index": 9, "last_log_term": 4, "journal_id": b""}
    )
    assert not [message for _, message in bench.peers[3].sent if message["type"] == "response_vote"]
    bench.isolate(1)
    bench.isolate(2)
    bench.peers[3].round(Connected(2))
    bench.run(3)
    assert bench.peers[3].machine.raftCurrentTerm == 0


def forward_after_restart(patch: Patch, machine: type[RaftMachine]) -> None:
    """The answer to a command of the process before is not taken for this one's."""
    bench = Bench(patch, machine)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    bench.peers[2].submit(b"of the former process")
    forwarded = bench.peers[2].sent.popleft()
    bench.start(2)
    bench.run(0.3)
    follower = bench.peers[2]
    follower.submit(b"of this process")
    own = follower.sent.popleft()
    leader.round(Received(2, forwarded[1]))
    answer = next(message for receiver, message in leader.sent if message["type"] == "apply_command_response")
    leader.sent.clear()
    follower.receive(1, answer)
    bench.run(1)
    assert follower.answers == []
    assert own[1]["command"].endswith(b"of this process")


def busy_snapshot(patch: Patch, machine: type[RaftMachine]) -> None:
    """A follower that needs a snapshot gets one message a heartbeat until it answers."""
    bench = Bench(patch, machine)
    bench.options = {"snapshot_entries": 5, "snapshot_tail": 0}
    bench.start(1, 2, 3)
    bench.elect(1)
    bench.isolate(3)
    for number in range(20):
        bench.peers[1].submit(b"%d" % number)
        bench.deliver()
    leader = bench.peers[1]
    bench.cut |= {(1, 3), (3, 1)}
    leader.round(Connected(3))
    sent = 0
    for peer in leader.machine._SyncObj__raftNextIndex:
        leader.machine._SyncObj__raftNextIndex[peer] = 2 if peer.id == 3 else leader.journal.last_index + 1
    for _ in range(100):
        bench.now += 0.001
        leader.round()
        leader.machine._SyncObj__sendAppendEntries()
        leader.round()
        sent += sum(receiver == 3 for receiver, _ in leader.sent)
        leader.sent.clear()
    assert 1 <= sent <= 3


def snapshot_waiters(patch: Patch, machine: type[RaftMachine]) -> None:
    """Who waits for an entry that a snapshot skips hears that the outcome is unknown."""
    bench = Bench(patch, machine)
    bench.options = {"snapshot_entries": 5, "snapshot_tail": 0}
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    follower = bench.peers[2]
    follower.submit(b"skipped")
    leader.round(Received(2, follower.sent.popleft()[1]))
    answer = next(m for receiver, m in leader.sent if receiver == 2 and m["type"] == "apply_command_response")
    bench.cut |= {(1, 2), (2, 1)}
    follower.receive(1, answer)
    bench.deliver()
    for number in range(20):
        leader.submit(b"%d" % number)
        bench.deliver()
    bench.isolate(2)
    bench.rejoin(2)
    bench.run(1)
    assert follower.recorder.commands == leader.recorder.commands
    assert follower.answers == [(None, FAIL_REASON.UNKNOWN_OUTCOME)]


FOCUSED: list[tuple[Scenario, type[RaftMachine]]] = [
    (double_vote, mutants.VotesNotVoters),
    (foreign_vote, mutants.VotesNotVoters),
    (late_ack, mutants.AckWithoutTerm),
    (stuck_follower, mutants.ResetRewrites),
    (returning_node, mutants.NoPreVote),
    (stale_leader, mutants.StaleLeaderNotTold),
    (forward_disconnect, mutants.ForwardWaitsForEver),
    (forward_unsent, mutants.ForwardUnsentWaitsForEver),
    (callback_error, mutants.ApplyAgainAfterCallbackError),
    (two_changes, mutants.ChangesUnguarded),
    (change_after_restart, mutants.ConfigurationForgotten),
    (joined_voter_votes, mutants.JoinedVotes),
    (forward_after_restart, mutants.RequestIdsRestart),
    (busy_snapshot, mutants.SnapshotBusy),
    (snapshot_waiters, mutants.SnapshotWaitersForgotten),
]
SIMULATED: list[tuple[dict[str, Any], int]] = [
    ({"machine": mutants.TruncateAlways}, 50),
    ({"machine": mutants.CommitUnverified}, 50),
    ({"outbox": mutants.EagerOutbox}, 5),
]


@pytest.mark.parametrize("scenario", [apply_error, *(scenario for scenario, _ in FOCUSED)])
def test_holds(scenario: Scenario, monkeypatch: Patch) -> None:
    scenario(monkeypatch, RaftMachine)


@pytest.mark.parametrize(("scenario", "mutant"), FOCUSED)
def test_fails_with_the_override_switched_off(
    scenario: Scenario, mutant: type[RaftMachine], monkeypatch: Patch
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, LookupError)):
        scenario(monkeypatch, mutant)


@pytest.mark.parametrize(("mutant", "seeds"), SIMULATED)
def test_the_simulator_catches(mutant: dict[str, Any], seeds: int) -> None:
    for seed in range(seeds):
        try:
            World(seed, Options.of(seed, **mutant)).run()
        except Exception:  # noqa: BLE001  a mutant may break anything
            return
    pytest.fail(f"the mutant survived {seeds} seeds")


def test_leadership_moves_on_request(monkeypatch: Patch) -> None:
    bench = Bench(monkeypatch)
    bench.start(1, 2, 3)
    leader = bench.elect(1)
    leader.round(Transfer(3, lambda *answer: leader.answers.append(answer)))
    bench.run(0.3)
    assert leader.answers == [(None, FAIL_REASON.SUCCESS)]
    assert bench.peers[3].machine._isLeader()
