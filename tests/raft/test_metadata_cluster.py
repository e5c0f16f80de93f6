"""The metadata state machine under real consensus: real journals, threads and gRPC, nodes that come back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.raft.cluster import RaftConfig, RaftNode
from penstock.raft.command import decode_result
from penstock.raft.journal import RaftJournal
from penstock.raft.metadata import MetadataMachine
from penstock.raft.view import View
from tests.raft.golden import history_1
from tests.raft.members import WAIT_S, until


@asynccontextmanager
async def running(root: Path, snapshot_entries: int = 8192) -> AsyncIterator[tuple[RaftNode, View]]:
    """A single voter."""
    view = View()
    machine = MetadataMachine(view.publish)
    settings = RaftConfig(
        1,
        root,
        {1: "127.0.0.1:1"},
        election_timeout_s=(0.05, 0.1),
        heartbeat_s=0.01,
        snapshot_entries=snapshot_entries,
        snapshot_tail=2,
    )
    node = RaftNode(settings, machine)
    await node.start()
    try:
        await until(lambda: node.is_leader)
        yield node, view
    finally:
        await node.stop()


async def test_a_command_is_in_the_view_when_its_result_is_there(tmp_path: Path) -> None:
    RaftJournal.format(tmp_path / "raft", "c1", 1, founding=True)
    async with running(tmp_path) as (node, view):
        for command in history_1().journal:
            applied = await node.submit(command, WAIT_S)
            decode_result(applied.result)
            assert view.image.version >= applied.index


async def test_the_image_comes_back_from_journal_and_snapshot(tmp_path: Path) -> None:
    RaftJournal.format(tmp_path / "raft", "c1", 1, founding=True)
    async with running(tmp_path) as (node, view):
        for command in history_1().journal:
            await node.submit(command, WAIT_S)
        before = view.image
    for entries in (8192, 5):  # from the journal; then, snapshots being made, from one of them
        async with running(tmp_path, entries) as (node, view):
            await node.barrier(WAIT_S)
            assert view.image == before
            assert view.image.topic_ids.keys() == {"t", "other"}
