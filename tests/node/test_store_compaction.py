"""A node that compacts its store: when it may go, and what becomes of it."""

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Admin, BrokerDescription, PenstockError, Producer, UnavailableError
from penstock.node.absence import objections, only_here
from penstock.node.store_compaction import StoreCompaction
from penstock.protocol.reasons import Reason
from penstock.raft.image import Address, MetadataImage, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.topic_config import TopicConfig
from penstock.storage.env import COPY, DATA_FILE
from tests.node.compacting_node import HANGS
from tests.node.test_main import Node, penstockd
from tests.storage.support import new_store
from tests.storage.test_copying import grown

WAIT_S = 200
SERVES = '"serving, node_epoch'


def node_info(node_id: int, **changes: Any) -> NodeInfo:
    address = Address("127.0.0.1", 9000 + node_id)
    known = NodeInfo(node_id, node_id, b"s", b"t", address, address, voter=True, may_vote=True)
    return NodeInfo(**{**{name: getattr(known, name) for name in NodeInfo.__dataclass_fields__}, **changes})


def image(
    *partitions: tuple[tuple[int, ...], tuple[int, ...]], minimum: int = 2, nodes: tuple[NodeInfo, ...] = ()
) -> MetadataImage:
    """Nodes 1 to 3, and a topic with partitions of these replicas and in-sync replicas."""
    infos = tuple(
        PartitionInfo(index, replicas, isr, (), isr[0], 1, 1, 1) for index, (replicas, isr) in enumerate(partitions)
    )
    topic = TopicInfo(b"t" * 16, "orders", TopicConfig(min_insync_replicas=minimum), infos)
    known = {node_id: node_info(node_id) for node_id in (1, 2, 3)} | {node.node_id: node for node in nodes}
    return MetadataImage(nodes=known, topics={topic.topic_id: topic}, topic_ids={"orders": topic.topic_id})


ALL = (1, 2, 3)


def test_a_node_may_go_where_enough_stay_in_sync() -> None:
    assert objections(image((ALL, ALL), ((2, 3), (2, 3)), ((1, 3), (3,)), minimum=2), 1) == []


@pytest.mark.parametrize(
    ("isr", "minimum", "said"),
    [
        ((1, 2), 2, "partition 0 of 'orders' would be in sync on [2] only, of at least 2"),
        ((1,), 2, "partition 0 of 'orders' is in sync on this node alone"),
        ((1,), 1, "partition 0 of 'orders' is in sync on this node alone"),
        ((1, 2, 3), 3, "partition 0 of 'orders' would be in sync on [2, 3] only, of at least 3"),
    ],
)
def test_a_node_stays_where_too_few_would_be_in_sync(isr: tuple[int, ...], minimum: int, said: str) -> None:
    assert objections(image((ALL, isr), minimum=minimum), 1) == [said]
    if 3 not in isr:
        assert objections(image((ALL, isr), minimum=minimum), 3) == []


def test_who_is_about_to_leave_does_not_count() -> None:
    (said,) = objections(image((ALL, ALL), nodes=(node_info(2, draining=True), node_info(1, voter=False))), 1)
    assert "in sync on [3] only" in said


def test_many_partitions_are_counted() -> None:
    found = objections(image(*[(ALL, (1, 2))] * 8), 1)
    assert len(found) == 6
    assert found[-1] == "3 more partitions alike"


def test_a_single_replica_may_go_and_is_named() -> None:
    alone = image(((1,), (1,)), (ALL, ALL), minimum=1)
    assert objections(alone, 1) == []
    assert only_here(alone, 1) == ["partition 0 of 'orders'"]
    assert only_here(alone, 2) == []


def test_a_voter_stays_where_no_majority_would() -> None:
    down, more = node_info(2, fenced=True), (node_info(4), node_info(5))
    assert objections(image(nodes=(down,)), 1) == ["voters [2] are absent, and without this one there is no majority"]
    assert objections(image(nodes=(node_info(2, may_vote=False),)), 1) != []
    assert objections(image(nodes=(down, node_info(1, voter=False))), 1) == []
    assert objections(image(nodes=(down, *more)), 1) == []
    assert objections(image(nodes=(down, node_info(3, fenced=True), *more)), 1) != []


def test_one_or_two_voters_may_go() -> None:
    """They never are a majority without each of them; a restart costs the same."""
    assert objections(image(nodes=(node_info(3, voter=False),)), 1) == []
    assert objections(image(nodes=(node_info(2, voter=False), node_info(3, voter=False))), 1) == []


# ---- a request


class Requests:
    """A StoreCompaction, and what it was asked to begin."""

    def __init__(self, path: Path, known: MetadataImage, check: Callable[[], None] = lambda: None) -> None:
        self.begun = 0
        self.store = new_store(path)
        self.compaction = StoreCompaction(1, self.store, lambda: known, check, self._begin)

    def _begin(self) -> None:
        self.begun += 1


@pytest.fixture
def requests(tmp_path: Path) -> Any:
    made: list[Requests] = []

    def make(*arguments: Any) -> Requests:
        made.append(Requests(tmp_path / f"store-{len(made)}", *arguments))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def test_only_asked_nothing_begins(requests: Any) -> None:
    asked = requests(image((ALL, ALL)))
    found = asked.compaction.request(validate_only=True)
    assert (found.used_bytes > 0, found.disk_bytes > 0, asked.begun) == (True, True, 0)
    assert asked.compaction.request(validate_only=False).used_bytes == found.used_bytes
    assert asked.begun == 1


def test_a_refusal_has_the_figures(requests: Any) -> None:
    asked = requests(image((ALL, (1, 2))))
    with pytest.raises(PenstockError) as refused:
        asked.compaction.request(validate_only=False)
    assert refused.value.reason is Reason.NOT_ENOUGH_REPLICAS
    assert int(refused.value.metadata["disk_bytes"]) > 0
    assert asked.begun == 0


def test_without_room_it_is_refused(requests: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(image((ALL, ALL)))
    monkeypatch.setattr(asked.store.environment, "free_bytes", lambda: 1_000)
    with pytest.raises(PenstockError, match="its file system has 1000") as refused:
        asked.compaction.request(validate_only=False)
    assert (refused.value.reason, asked.begun) == (Reason.STORE_FULL, 0)


def test_a_node_that_does_not_serve_or_is_about_to_end_refuses(requests: Any) -> None:
    def ends() -> None:
        raise PenstockError(Reason.NOT_SERVING, "about to stop")

    asked = requests(image((ALL, ALL)), ends)
    with pytest.raises(PenstockError, match="about to stop"):
        asked.compaction.request(validate_only=False)
    assert asked.begun == 0


# ---- the process


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a node whose copy meets something; its process and the lines it writes."""
    started: list[asyncio.subprocess.Process] = []

    async def start(what: str) -> tuple[Node, asyncio.subprocess.Process]:
        node = Node(tmp_path)
        if not node.data.exists():
            node.format("--new-cluster")
        program = ["tests.node.compacting_node", what] if what else ["penstock.node.main"]
        command = [sys.executable, *([] if what else ["-P"]), "-m", *program, "start", "--config", str(node.config)]
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE, cwd=ROOT)
        started.append(process)
        await said(process, SERVES)
        return node, process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


ROOT = Path(__file__).parents[2]


async def said(process: asyncio.subprocess.Process, text: str) -> str:
    """Read what it writes up to a line with this text; all of it."""
    assert process.stderr is not None
    lines = ""
    async with asyncio.timeout(WAIT_S):
        while text not in (line := (await process.stderr.readline()).decode()):
            assert line, f"the process ended: {lines}"
            lines += line
    return lines + line


async def ask(node: Node) -> BrokerDescription:
    """Let it compact its store; the registration from before."""
    async with Admin(node.plan.nodes[0].client) as admin:
        (broker,) = await admin.list_brokers()
        await admin.compact_store(1)
    return broker


async def test_it_runs_on_in_the_same_process_and_registers_anew(running: Any) -> None:
    node, process = await running("")
    for _ in range(3):
        async with Admin(node.plan.nodes[0].client) as admin, Producer(node.plan.nodes[0].client) as producer:
            with contextlib.suppress(PenstockError):
                await admin.create_topic("single", replication_factor=1)
            await (await producer.send("single", b"v"))
        former = await ask(node)
        lines = await said(process, SERVES)
        assert "1 partitions are not served until the store is compacted: partition 0 of 'single'" in lines
        assert "the store was compacted from" in lines
        async with Admin(node.plan.nodes[0].client) as admin:
            (broker,) = await admin.list_brokers()
            assert broker.node_epoch > former.node_epoch
    process.terminate()
    await process.communicate()
    assert process.returncode == 0


async def test_it_runs_on_with_the_old_store_where_the_copy_failed(running: Any) -> None:
    node, process = await running("fail")
    before = (node.data / "store" / DATA_FILE).stat().st_ino
    await ask(node)
    lines = await said(process, SERVES)
    assert "the store was not compacted and is as it was: a test says so" in lines
    assert (node.data / "store" / DATA_FILE).stat().st_ino == before
    assert not (node.data / "store" / COPY).exists()


async def test_damage_ends_it(running: Any) -> None:
    node, process = await running("damage")
    await ask(node)
    lines = await said(process, "the node must end")
    assert "format --join" in lines
    await process.communicate()
    assert process.returncode == 70


async def test_sigterm_during_the_copy_ends_it_and_the_next_start_has_the_store(running: Any) -> None:
    node, process = await running("hang")
    await ask(node)
    await said(process, HANGS)
    assert (node.data / "store" / COPY).exists()
    process.terminate()
    await process.communicate()
    assert process.returncode == 0
    again, process = await running("")
    assert not (node.data / "store" / COPY).exists()
    assert (await ask(again)).node_id == 1


async def test_one_request_at_a_time(running: Any) -> None:
    node, process = await running("hang")
    async with Admin(node.plan.nodes[0].client, timeout_ms=5_000) as admin:
        await admin.compact_store(1)
        with pytest.raises(UnavailableError):
            await admin.compact_store(1)
    await said(process, HANGS)


# ---- offline


def test_the_store_of_a_stopped_node(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with node.config.open("a") as config:  # its last table is [limits]
        config.write("store_ballast_bytes = 1048576\n")
    grown(node.data / "store")
    before = (node.data / "store" / DATA_FILE).stat().st_blocks * 512
    done = penstockd("compact-store", "--config", str(node.config))
    assert done.returncode == 0, done.stderr
    after = (node.data / "store" / DATA_FILE).stat().st_blocks * 512
    assert after < before / 2
    told = re.search(r"from (\d+) to (\d+) bytes on disk", done.stdout)
    assert told is not None
    assert int(told[1]) < before
    assert int(told[2]) < int(told[1]) / 2


def test_offline_refusals_are_clear(tmp_path: Path) -> None:
    node = Node(tmp_path)
    missing = penstockd("compact-store", "--config", str(node.config))
    assert (missing.returncode, "holds no store" in missing.stderr) == (1, True)
    with contextlib.closing(new_store(node.data / "store")):
        locked = penstockd("compact-store", "--config", str(node.config))
    assert (locked.returncode, "in use by another process" in locked.stderr) == (1, True)
    node.config.write_text("node_id = ]")
    assert penstockd("compact-store", "--config", str(node.config)).returncode == 2
