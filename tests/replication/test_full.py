"""Full stores under real shells: a follower's retries, a leader's refusals, and the way back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.replication.fetcher import REOPEN_FIRST_MS, REOPEN_LAST_MS, LeaderLink
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.apply_nodes import note_store_state
from penstock.storage import Append, Outcome
from penstock.v1 import common_pb2
from tests.replication.cluster import KEY, NODES, TestCluster, TestNode, request_of, send, until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[TestCluster]:
    cluster = TestCluster(tmp_path)
    await cluster.start()
    yield cluster
    await cluster.stop()


def fill(node: TestNode, patch: pytest.MonkeyPatch) -> None:
    """Somebody takes the whole disk; the writer notices with its next append."""
    patch.setattr(node.store.room, "_measure", lambda: 0)
    node.store.room._capacity = 0


def note(cluster: TestCluster, node_id: int, state: int) -> None:
    node_epoch = cluster.image.nodes[node_id].node_epoch
    command = pb.NoteStoreState(node_id=node_id, node_epoch=node_epoch, state=state)
    cluster.apply(note_store_state, command)
    cluster.tell()


def link_of(node: TestNode) -> LeaderLink:
    return node.replicas._fetcher._of[KEY]


async def test_a_follower_with_a_full_store_tries_at_growing_intervals_and_says_so_once(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = cluster.nodes[3]
    failures: list[Outcome] = []
    on_outcomes = full.replicas.on_outcomes

    def count(outcomes: list[Outcome]) -> None:
        failures.extend(one for one in outcomes if isinstance(one.write, Append) and one.error is not None)
        on_outcomes(outcomes)

    monkeypatch.setattr(full.replicas, "on_outcomes", count)
    await until(lambda: full.partition.shell._link is not None, "it follows")
    link = link_of(full)
    with monkeypatch.context() as patch:
        fill(full, patch)
        note(cluster, 3, common_pb2.STORE_STATE_FULL)
        assert cluster.info.isr == (1, 2)
        sent = [send(cluster.leader.partition, request_of(b"%d" % number)) for number in range(5)]
        await asyncio.gather(*sent)
        await until(lambda: link._reopen_ms.get(KEY) == REOPEN_LAST_MS, "the pause has grown to its end")
        assert len(failures) <= 10  # 10 + 20 + … + 640 ms
        told = [record for record in caplog.records if record.getMessage().startswith("append to")]
        assert len(told) == 1
    note(cluster, 3, common_pb2.STORE_STATE_OK)
    await cluster.until_isr(NODES)
    await cluster.until_equal()
    opened = link._opened[KEY]
    await until(lambda: asyncio.get_running_loop().time() - opened > 1, "the session outlives the last pause")
    session = full.partition.shell.leading().follower
    assert session is not None
    assert session.session is not None
    link.leave(full.partition.shell, session.session, retry=True)
    assert link._reopen_ms[KEY] == 2 * REOPEN_FIRST_MS


async def test_a_full_leader_refuses_before_there_is_an_offset_and_keeps_its_leadership(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = cluster.leader
    await send(leader.partition, request_of(b"before"))
    epoch = cluster.info.leader_epoch
    with monkeypatch.context() as patch:
        fill(leader, patch)
        leader.store.room.exhausted()
        for _ in range(3):
            with pytest.raises(PenstockError) as refused:
                await send(leader.partition, request_of(b"refused"))
            assert refused.value.reason is Reason.STORE_FULL
        assert leader.partition.log_end_offset == 1
        core: Any = leader.partition.shell.leading().leader
        assert not core.resigned
    await until(lambda: leader.store.room.state != 3, "the writer has looked again")
    assert (await send(leader.partition, request_of(b"after"))).base_offset == 1
    assert cluster.info.leader_epoch == epoch


async def test_a_leader_that_proposed_a_full_member_proposes_it_again_when_it_has_room(cluster: TestCluster) -> None:
    """It was refused for good, at that partition_epoch: the note that ends the refusal raises it (rule 5)."""
    note(cluster, 3, common_pb2.STORE_STATE_FULL)
    await send(cluster.leader.partition, request_of(b"1"))
    core: Any = cluster.leader.partition.shell.leading().leader
    await until(lambda: bool(core._change.refused), "it was proposed, and refused")
    assert core.pending is None
    assert cluster.info.isr == (1, 2)
    note(cluster, 3, common_pb2.STORE_STATE_NEARLY_FULL)
    await cluster.until_isr(NODES)
