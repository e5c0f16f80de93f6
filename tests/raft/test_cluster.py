"""The whole of consensus: real nodes, real gRPC on loopback, real journals."""

import asyncio
import contextlib
import pickle
from pathlib import Path

import pysyncobj.pickle
import pytest

from penstock.raft.cluster import OutcomeUnknown, RaftConfig, RaftNode, SubmitRefused
from penstock.raft.core import MAX_COMMAND_BYTES
from penstock.raft.errors import ForeignJournalError, JournalLockedError, NotFormattedError
from tests.raft.members import RETRY_S, WAIT_S, Member, Members, settled, until


async def test_commands_from_every_node_are_applied_on_every_node_in_one_order(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        members = list(cluster.members.values())
        commands = [b"command %d" % number for number in range(300)]
        answers = await asyncio.gather(*(cluster.submit(members[i % 3], command) for i, command in enumerate(commands)))
        last = max(answer.index for answer in answers)
        await until(lambda: all(member.node.applied_index >= last for member in members))
        orders = [cluster.applied(member) for member in members]
        assert sorted(orders[0]) == sorted(commands)
        assert orders[0] == orders[1] == orders[2]
        places = [int(answer.result) - 1 for answer in answers]
        assert [members[0].ledger.commands[place] for place in places] == commands


async def test_a_new_leader_takes_over_and_the_old_one_comes_back(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        first = await cluster.leader()
        await cluster.submit(first, b"before")
        changes: list[tuple[int | None, int]] = []
        other = next(member for member in cluster.members.values() if member is not first)
        other.node.on_leadership.append(lambda leader, term: changes.append((leader, term)))
        await first.stop()
        second = await cluster.leader()
        assert second is not first
        await cluster.submit(second, b"between")
        await cluster.restart(first)
        answer = await cluster.submit(first, b"after")
        assert cluster.applied(first) == [b"before", b"between", b"after"]
        assert answer.index <= first.node.applied_index
        await until(lambda: changes and changes[-1] == (other.node.leader, other.node.term) and changes[-1][0])
        assert {leader for leader, _ in changes} - {None, first.node_id}
        assert [term for _, term in changes] == sorted(term for _, term in changes)


async def test_all_stop_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Members(tmp_path, snapshot_entries=20, snapshot_tail=3) as cluster:
        leader = await cluster.leader()
        commands = [b"%d" % number for number in range(50)]
        for command in commands:
            await cluster.submit(leader, command)
        for member in cluster.members.values():
            await member.stop()
        for member in cluster.members.values():
            await cluster.restart(member)
        leader = await cluster.leader()
        await settled(lambda: leader.node.barrier(WAIT_S))
        assert cluster.applied(leader) == commands


async def test_a_follower_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    async with Members(tmp_path, snapshot_entries=20, snapshot_tail=0) as cluster:
        leader = await cluster.leader()
        behind = next(member for member in cluster.members.values() if member is not leader)
        await behind.stop()
        commands = [b"%d" % number + b"x" * 100_000 for number in range(60)]
        for command in commands:
            await cluster.submit(leader, command)
        await cluster.restart(behind)
        await settled(lambda: behind.node.barrier(WAIT_S))
        assert cluster.applied(behind) == commands


async def test_an_observer_follows_becomes_a_voter_and_a_voter_leaves(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        gone, stays = cluster.members[1], cluster.members[2]
        await cluster.submit(gone, b"before")
        observer = Member(4, tmp_path, **(cluster.config | {"observer": True}))
        observer.format(founding=False)
        await observer.bind()
        await observer.run(cluster.voters)
        cluster.members[4] = observer
        await cluster.submit(observer, b"through the observer")
        assert cluster.applied(observer) == [b"before", b"through the observer"]
        async with asyncio.timeout(WAIT_S):
            while 4 not in stays.node.voters:
                with contextlib.suppress(SubmitRefused, OutcomeUnknown):
                    await stays.node.add_voter(4, observer.address, observer.node.journal_id, WAIT_S)
                await asyncio.sleep(RETRY_S)
        await settled(lambda: observer.node.barrier(WAIT_S))
        assert 4 in observer.node.voters
        await cluster.hand_over(stays.node_id)
        async with asyncio.timeout(WAIT_S):
            while gone.node_id in stays.node.voters:
                with contextlib.suppress(SubmitRefused, OutcomeUnknown):  # refused: it leads, or changes are settled
                    await stays.node.remove_voter(gone.node_id, WAIT_S)
                await asyncio.sleep(RETRY_S)
        await until(lambda: 4 in observer.node.voters and gone.node_id not in observer.node.voters)
        await cluster.members.pop(gone.node_id).stop()
        await stays.stop()  # what is left of three voters: one that founded the cluster, and the new one
        last = cluster.members[3]
        assert await cluster.leader() in (observer, last)
        answer = await cluster.submit(last, b"with the new voter's vote")
        assert last.ledger.commands[int(answer.result) - 1] == b"with the new voter's vote"
        assert cluster.applied(last) == [b"before", b"through the observer", b"with the new voter's vote"]


async def test_a_leader_does_not_remove_itself(tmp_path: Path) -> None:
    async with Members(tmp_path, count=1) as cluster:
        alone = await cluster.leader()
        await alone.node.barrier(WAIT_S)
        with pytest.raises(SubmitRefused, match="REQUEST_DENIED"):
            await alone.node.remove_voter(1, WAIT_S)


async def test_leadership_is_handed_over(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        leader = await cluster.leader()
        await settled(lambda: leader.node.barrier(WAIT_S))
        await cluster.hand_over(next(n for n in cluster.members if n != leader.node_id))


async def test_without_a_majority_outcomes_are_refused_or_unknown(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        refused: list[bytes] = []
        async with asyncio.timeout(WAIT_S):
            while True:
                leader = await cluster.leader()
                await settled(lambda: leader.node.barrier(WAIT_S))  # noqa: B023  awaited here
                others = [member for member in cluster.members.values() if member is not leader]
                for member in others:
                    await member.stop()
                command = b"%d into the leader's log" % len(refused)
                try:
                    await leader.node.submit(command, 0.05)
                except OutcomeUnknown:
                    break
                except SubmitRefused:
                    refused.append(command)  # on a slow machine it no longer leads: once more
                for member in others:
                    await cluster.restart(member)
        await until(lambda: leader.node.leader is None)
        with pytest.raises(SubmitRefused, match="no leader"):
            await leader.node.submit(b"nowhere", 0.2)
        with pytest.raises(SubmitRefused, match="NOT_LEADER"):
            await asked_to_hand_over(leader)
        assert not set(leader.ledger.commands) & {*refused, b"nowhere"}
        waiting = asyncio.ensure_future(leader.node.submit(b"nowhere", WAIT_S))
        await asyncio.sleep(0)
        await leader.stop()
        with pytest.raises((SubmitRefused, OutcomeUnknown)):
            await waiting
        with pytest.raises(SubmitRefused, match="not running"):
            await leader.node.submit(b"nowhere", WAIT_S)


async def asked_to_hand_over(member: Member) -> None:
    """Ask until there is an answer: in vain while its thread is not scheduled."""
    for _ in range(int(WAIT_S)):
        with contextlib.suppress(TimeoutError):
            await member.node.transfer_leadership()
            return


async def test_too_large_a_command_is_refused_and_the_largest_passes(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        follower = next(iter(cluster.members.values()))
        with pytest.raises(SubmitRefused, match="limit"):
            await follower.node.submit(b"x" * (MAX_COMMAND_BYTES + 1), WAIT_S)
        commands = [b"%d" % number + b"x" * (MAX_COMMAND_BYTES - 1) for number in range(10)]
        await asyncio.gather(*(cluster.submit(follower, command) for command in commands))
        assert sorted(cluster.applied(follower)) == commands


async def test_an_error_in_apply_stops_the_node_for_good(tmp_path: Path) -> None:
    async with Members(tmp_path, count=1) as cluster:
        leader = await cluster.leader()
        fatal: list[BaseException] = []
        leader.node.on_fatal.append(fatal.append)

        def fail(index: int, command: bytes) -> bytes:
            raise MemoryError

        leader.ledger.apply = fail  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown, match="stopped"):
            await leader.node.submit(b"too much", WAIT_S)
        assert [type(error) for error in fatal] == [MemoryError]
        with pytest.raises(SubmitRefused):
            await leader.node.submit(b"more", WAIT_S)
        assert not leader.node.is_leader


async def test_nothing_is_pickled_or_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, snapshots, configuration changes, restart: pickle is never called."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("pickle was called")

    for module in (pickle, pysyncobj.pickle):
        for name in ("load", "loads", "dump", "dumps"):
            monkeypatch.setattr(module, name, forbidden)
    await test_an_observer_follows_becomes_a_voter_and_a_voter_leaves(tmp_path / "membership")
    await test_a_follower_far_behind_gets_a_snapshot(tmp_path / "snapshot")
    await test_all_stop_and_nothing_is_lost(tmp_path / "restart")


async def test_a_node_without_a_fitting_journal_does_not_start(tmp_path: Path) -> None:
    member = Member(1, tmp_path)
    member.format()
    with pytest.raises(NotFormattedError):
        await RaftNode(RaftConfig(1, tmp_path, {1: "127.0.0.1:1"}), member).start()  # type: ignore[arg-type]
    with pytest.raises(ForeignJournalError):
        await RaftNode(RaftConfig(2, member.root, {2: "127.0.0.1:1"}), member).start()  # type: ignore[arg-type]
    await member.bind()
    await member.run({1: member.address})
    with pytest.raises(JournalLockedError):
        await RaftNode(member.node.config, member.ledger).start()
    await member.stop()
