"""The client takes time, chance, names and channels from its seams alone, and no order from a hash table."""

import ast
import random
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from penstock.client import Admin, Consumer, Producer
from penstock.client.clock import SystemClock
from penstock.client.seams import ChannelOptions, Seams, dial
from tests.client.reference_server import Cluster

CLIENT = Path(__file__).parents[2] / "client"
OF_THE_MACHINE = {"clock.py", "seams.py", "group/watchdog.py"}
"""Where the real things are."""
BESIDE_THE_LOOP = {
    "deduplication.py",
    "marks.py",
    "devcluster.py",
    "devplan.py",
    "loop_thread.py",
    "ports.py",
    "processes.py",
}
"""Threads and processes: of the blocking face, of a store for handlers, of the runner of a cluster on one machine."""
FORBIDDEN = ("time.", "random.", "uuid.", "secrets.", "threading.", "os.urandom", "grpc.aio.", "asyncio.to_thread")


def test_nothing_of_the_machine_is_called_past_the_seams() -> None:
    found = []
    for path in sorted([*CLIENT.glob("*.py"), *CLIENT.glob("group/*.py")]):
        name = str(path.relative_to(CLIENT))
        if name in OF_THE_MACHINE | BESIDE_THE_LOOP:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.startswith(FORBIDDEN) or called.endswith((".run_in_executor", ".add_reader")):
                    found.append(f"{name}:{node.lineno} {called}")
    assert found == []


@pytest.mark.skipif(sys.platform != "linux", reason="of the clocks that Linux has")
def test_time_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop or a virtual machine that wakes must not take its former membership for fresh."""
    awake_ns, asleep_ns = 5_000_000_000, 60_000_000_000
    now = {time.CLOCK_MONOTONIC: awake_ns, time.CLOCK_BOOTTIME: awake_ns + asleep_ns}
    monkeypatch.setattr(time, "clock_gettime_ns", now.__getitem__)
    monkeypatch.setattr(time, "monotonic_ns", lambda: awake_ns)
    assert SystemClock().monotonic_ms() == 65_000


class Names:
    """Seams that count what is asked of them."""

    def __init__(self) -> None:
        self.dialed: list[str] = []
        self.given = 0

    def dial(
        self, address: str, credentials: grpc.ChannelCredentials | None, options: ChannelOptions
    ) -> grpc.aio.Channel:
        self.dialed.append(address)
        return dial(address, credentials, options)

    def unique(self) -> str:
        self.given += 1
        return f"name-{self.given}"


async def test_all_three_clients_use_the_seams_they_are_given(cluster: Cluster) -> None:
    names = Names()
    seams = Seams(rng=random.Random(1), dial=names.dial, unique=names.unique)
    admin, producer, consumer = Admin(cluster.bootstrap()), Producer(cluster.bootstrap()), Consumer(cluster.bootstrap())
    admin._seams = producer._seams = consumer._seams = seams
    async with admin:
        await admin.create_topic("orders", partitions=1, replication_factor=1)
        assert names.given == 1
        assert names.dialed
    async with producer:
        await (await producer.send("orders", b"1"))
    dialed = len(names.dialed)
    assert dialed > 1
    async with consumer:
        await consumer.assign_topics("orders", start="earliest")
        assert (await anext(aiter(consumer))).value == b"1"
    assert len(names.dialed) > dialed
    assert names.given == 1


def test_topics_are_learned_in_the_order_of_the_metadata_whatever_the_hash_seed() -> None:
    """Order of a set of names would differ from one process to the next, and a simulation with it."""
    program = (
        "from penstock.client.catalog import Catalog\n"
        "from penstock.v1 import cluster_service_pb2 as c, topic_service_pb2 as t\n"
        "names = [f'topic-{n}' for n in range(20)]\n"
        "catalog = Catalog()\n"
        "topics = [t.Topic(topic_id=name.encode(), name=name) for name in names]\n"
        "catalog.learn(c.ClusterMetadata(metadata_version=1, topics=topics), None)\n"
        "assert list(catalog.topics) == names, list(catalog.topics)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={"PYTHONHASHSEED": "7"})
