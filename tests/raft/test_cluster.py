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
from tests.raft.members import Member, Members, until


async def test_commands_from_every_node_are_applied_on_every_node_in_one_order(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        await cluster.leader()
        nodes = [member.node for member in cluster.members.values()]
        answers = await asyncio.gather(
            *(nodes[i % 3].submit(f"command {i}".encode(), timeout_s=20) for i in range(300))
        )
        assert sorted(int(answer.result) for answer in answers) == list(range(1, 301))
        last = max(answer.index for answer in answers)
        await until(lambda: all(node.applied_index >= last for node in nodes))
        ledgers = [member.ledger.commands for member in cluster.members.values()]
        assert len(ledgers[0]) == 300
        assert ledgers[0] == ledgers[1] == ledgers[2]


async def test_a_new_leader_takes_over_and_the_old_one_comes_back(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        first = await cluster.leader()
        await first.node.submit(b"before", 20)
        changes: list[tuple[int | None, int]] = []
        other = next(member for member in cluster.members.values() if member is not first)
        other.node.on_leadership.append(lambda leader, term: changes.append((leader, term)))
        await first.stop()
        second = await cluster.leader()
        assert second is not first
        await second.node.submit(b"between", 20)
        await cluster.restart(first)
        answer = await first.node.submit(b"after", 20)
        assert first.ledger.commands == [b"before", b"between", b"after"]
        assert answer.index == first.node.applied_index
        await until(lambda: changes and changes[-1][0] == second.node_id)
        assert [term for _, term in changes] == sorted(term for _, term in changes)


async def test_all_stop_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Members(tmp_path, snapshot_entries=20, snapshot_tail=3) as cluster:
        leader = await cluster.leader()
        for number in range(50):
            await leader.node.submit(b"%d" % number, 20)
        for member in cluster.members.values():
            await member.stop()
        for member in cluster.members.values():
            await cluster.restart(member)
        leader = await cluster.leader()
        await leader.node.barrier(20)
        assert leader.ledger.commands == [b"%d" % number for number in range(50)]


async def test_a_follower_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    async with Members(tmp_path, snapshot_entries=20, snapshot_tail=0) as cluster:
        leader = await cluster.leader()
        behind = next(member for member in cluster.members.values() if member is not leader)
        await behind.stop()
        big = b"x" * 100_000
        for _ in range(60):
            await leader.node.submit(big, 20)
        await cluster.restart(behind)
        await behind.node.barrier(20)
        assert behind.ledger.commands == [big] * 60


async def test_an_observer_follows_becomes_a_voter_and_a_voter_leaves(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        leader = await cluster.leader()
        await leader.node.submit(b"before", 20)
        observer = Member(4, tmp_path, **(cluster.config | {"observer": True}))
        observer.format(founding=False)
        await observer.bind()
        await observer.run(cluster.voters)
        cluster.members[4] = observer
        await observer.node.submit(b"through the observer", 20)
        assert observer.ledger.commands == [b"before", b"through the observer"]
        await leader.node.add_voter(4, observer.address, observer.node.journal_id, 20)
        gone = next(n for n in cluster.members if n not in (leader.node_id, 4))
        await observer.node.barrier(20)
        await leader.node.remove_voter(gone, 20)
        await cluster.members.pop(gone).stop()
        with pytest.raises(SubmitRefused, match="REQUEST_DENIED"):
            await leader.node.remove_voter(leader.node_id, 20)
        await until(lambda: 4 in observer.node.voters and gone not in observer.node.voters)
        await leader.stop()
        del cluster.members[leader.node_id]
        last = next(member for member in cluster.members.values() if member is not observer)
        assert await cluster.leader() in (observer, last)
        answer = await last.node.submit(b"with the new voter's vote", 20)
        assert answer.result == b"3"


async def test_leadership_is_handed_over(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        leader = await cluster.leader()
        await leader.node.barrier(20)
        to = next(n for n in cluster.members if n != leader.node_id)
        await until(lambda: all(m.node.applied_index == leader.node.applied_index for m in cluster.members.values()))
        with pytest.raises(SubmitRefused, match="NOT_LEADER"):
            await cluster.members[to].node.transfer_leadership()
        async with asyncio.timeout(20):
            while not cluster.members[to].node.is_leader:  # best effort: on a slow machine another may win meanwhile
                present = await cluster.leader()
                if present.node_id != to:
                    with contextlib.suppress(SubmitRefused):
                        await present.node.transfer_leadership(to)
                    await asyncio.sleep(0.05)


async def test_without_a_majority_outcomes_are_refused_or_unknown(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        leader = await cluster.leader()
        await leader.node.barrier(20)
        for member in cluster.members.values():
            if member is not leader:
                await member.stop()
        with pytest.raises(OutcomeUnknown):
            await leader.node.submit(b"into the leader's log", 0.05)
        await until(lambda: leader.node.leader is None)
        with pytest.raises(SubmitRefused, match="no leader"):
            await leader.node.submit(b"nowhere", 0.2)
        waiting = asyncio.ensure_future(leader.node.submit(b"nowhere", 20))
        await asyncio.sleep(0)
        await leader.stop()
        with pytest.raises((SubmitRefused, OutcomeUnknown)):
            await waiting
        with pytest.raises(SubmitRefused, match="not running"):
            await leader.node.submit(b"nowhere", 20)


async def test_too_large_a_command_is_refused_and_the_largest_passes(tmp_path: Path) -> None:
    async with Members(tmp_path) as cluster:
        follower = next(iter(cluster.members.values()))
        with pytest.raises(SubmitRefused, match="limit"):
            await follower.node.submit(b"x" * (MAX_COMMAND_BYTES + 1), 20)
        await asyncio.gather(*(follower.node.submit(b"x" * MAX_COMMAND_BYTES, 20) for _ in range(10)))


async def test_an_error_in_apply_stops_the_node_for_good(tmp_path: Path) -> None:
    async with Members(tmp_path, count=1) as cluster:
        leader = await cluster.leader()
        fatal: list[BaseException] = []
        leader.node.on_fatal.append(fatal.append)

        def fail(index: int, command: bytes) -> bytes:
            raise MemoryError

        leader.ledger.apply = fail  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown, match="stopped"):
            await leader.node.submit(b"too much", 20)
        assert [type(error) for error in fatal] == [MemoryError]
        with pytest.raises(SubmitRefused):
            await leader.node.submit(b"more", 20)
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
