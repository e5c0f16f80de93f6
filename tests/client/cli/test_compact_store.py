"""`penstock broker compact-store`: what it shows, waits for and ends with."""

from dataclasses import replace
from typing import Any

import pytest

from penstock.client import (
    Admin,
    BrokerDescription,
    ClusterDescription,
    InvalidRequestError,
    PartitionDescription,
    RequestTimeoutError,
    StoreRoom,
    TopicDescription,
)
from penstock.client.cli import store_compaction
from penstock.client.cli.store_compaction import missing, until_back
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.client.cli.test_commands import Penstock, penstock
from tests.client.reference_server import Cluster

__all__ = ["penstock"]  # a fixture

MIB = 1 << 20


async def test_a_node_gives_back_what_it_can(penstock: Penstock) -> None:
    done = await penstock("broker", "compact-store", "2", "--yes")
    assert (done.code, done.out) == (
        0,
        b"node 2: from 419430400 to 104857600 bytes on disk, 314572800 given back\n",
    ), done.err
    assert penstock.cluster.brokers[2].node_epoch == 2
    assert penstock.cluster.brokers[1].node_epoch == 1


async def test_json_and_tsv(penstock: Penstock) -> None:
    dry = await penstock("broker", "compact-store", "2", "--dry-run", "--format", "json")
    before = {"used_bytes": 100 * MIB, "disk_bytes": 400 * MIB}
    assert dry.json == {"node_id": 2, "before": before, "dry_run": True}
    done = await penstock("broker", "compact-store", "2", "--yes", "--format", "json")
    after = {"used_bytes": 100 * MIB, "disk_bytes": 100 * MIB}
    assert done.json == {
        "node_id": 2,
        "before": before,
        "dry_run": False,
        "given_back_bytes": 300 * MIB,
        "after": after,
    }
    tsv = await penstock("broker", "compact-store", "2", "--yes", "--format", "tsv")
    assert tsv.out.decode().splitlines() == [
        "node\tused_bytes\tdisk_bytes_before\tdisk_bytes_after",
        f"2\t{100 * MIB}\t{100 * MIB}\t{100 * MIB}",
    ]
    assert tsv.code == 0  # there was nothing to give back


async def test_a_dry_run_begins_nothing(penstock: Penstock) -> None:
    done = await penstock("broker", "compact-store", "2", "--dry-run")
    assert done.out == b"node 2: 419430400 bytes on disk, 104857600 used; about 314572800 could be given back\n"
    assert penstock.cluster.brokers[2].node_epoch == 1


async def test_it_asks_first(penstock: Penstock) -> None:
    done = await penstock("broker", "compact-store", "2")
    assert (done.code, b"Add --yes" in done.err) == (2, True)
    assert penstock.cluster.brokers[2].node_epoch == 1


async def test_a_store_that_did_not_shrink_is_a_failure(penstock: Penstock) -> None:
    penstock.cluster.brokers[2].gives_back = False
    done = await penstock("broker", "compact-store", "2", "--yes", "--format", "json")
    assert (done.code, done.json["given_back_bytes"]) == (1, 0)
    assert b"did not shrink; its log says why" in done.err


@pytest.mark.parametrize("dry", [("--dry-run",), ("--yes",)])
async def test_a_refusal_is_an_error(penstock: Penstock, dry: tuple[str, ...]) -> None:
    penstock.cluster.unary_faults.append(Reason.NOT_ENOUGH_REPLICAS)
    done = await penstock("broker", "compact-store", "2", *dry, "--format", "json")
    assert (done.code, done.json["error"]["reason"]) == (1, "NOT_ENOUGH_REPLICAS")
    assert penstock.cluster.brokers[2].node_epoch == 1


async def test_an_unknown_node_is_named(penstock: Penstock) -> None:
    done = await penstock("broker", "compact-store", "9", "--yes")
    assert (done.code, b"no node 9 is registered; there are [1, 2, 3]" in done.err) == (1, True)


async def test_the_figures_are_told_with_a_refusal(cluster: Cluster) -> None:
    async with Admin(cluster.bootstrap()) as admin:
        with pytest.raises(InvalidRequestError):
            await admin.store_room(9)
        assert await admin.store_room(1) == StoreRoom(1, 100 * MIB, 400 * MIB)
        cluster.unary_faults.append(Reason.STORE_FULL)
        with pytest.raises(PenstockError, match="injected"):  # one without figures
            await admin.store_room(1)


async def test_waiting_has_an_end(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_compaction, "POLL_S", 0.001)
    async with Admin(cluster.bootstrap()) as admin:
        with pytest.raises(RequestTimeoutError, match=r"node 2 is not back .* last: node 2 is leaving"):
            await until_back(admin, StoreRoom(2, 0, 0), former_epoch=1, limit_s=0.05)


# ---- what is missing


def described(isr: tuple[int, ...] = (1, 2), **node: Any) -> ClusterDescription:
    broker = BrokerDescription(2, "h", 1, "", 20, fenced=False, durability="commit", voter=True, version="")
    partition = PartitionDescription(0, 1, 1, 1, (1, 2), isr, ())
    config: Any = None
    topic = TopicDescription(b"t", "t", 2, config, (partition,))
    return ClusterDescription("c", 1, 1, 3, (replace(broker, **node),), (topic,))


def test_a_node_is_back_when_it_is_in_sync_since_a_later_registration() -> None:
    assert missing(described(), 2, 19) is None
    assert missing(described(node_epoch=19), 2, 19) == "node 2 is leaving"
    assert missing(described(node_epoch=19, fenced=True), 2, 19) == "node 2 is away"
    assert missing(described(fenced=True), 2, 19) == "node 2 is away"
    assert missing(described(isr=(1,)), 2, 19) == "node 2 is back and catches up: 1 partitions to go"
    assert missing(described(node_id=3), 2, 19) == "node 2 is away"
