"""The simulated clients against reference brokers on the simulated network: they note what is so, and see faults."""

import itertools
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Delivery, PenstockError, Producer
from penstock.client.options import ProducerOptions
from penstock.protocol.reasons import Reason
from penstock.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    consumer_service_pb2_grpc,
    producer_service_pb2_grpc,
    topic_service_pb2_grpc,
)
from tests.client import reference_server as reference
from tests.simulation.cluster.clients import (
    AdminClient,
    AppendingClient,
    ClientFault,
    ClientProcess,
    ConsumingClient,
    FinalReader,
    ProducingClient,
    Site,
    Topics,
)
from tests.simulation.cluster.history import Content, History, Outcome, check_all
from tests.simulation.kernel.loop import SimLoop
from tests.simulation.kernel.network import Network
from tests.simulation.kernel.rpc import SimServer
from tests.simulation.kernel.scheduler import Scheduler

PORT = 9092


class SimBroker(reference.Broker):
    """A reference broker that serves on the simulated network."""

    def __init__(self, cluster: reference.Cluster, node_id: int, network: Network) -> None:
        super().__init__(cluster, node_id)
        self.network = network
        self.port = PORT

    @property
    def host(self) -> str:
        return f"n{self.node_id}"

    async def start(self) -> None:
        server: Any = SimServer(self.network, self.host)
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(reference.ClusterApi(self), server)
        topic_service_pb2_grpc.add_TopicServiceServicer_to_server(reference.TopicApi(self), server)
        producer_service_pb2_grpc.add_ProducerServiceServicer_to_server(reference.ProducerApi(self), server)
        consumer_service_pb2_grpc.add_ConsumerServiceServicer_to_server(reference.ConsumerApi(self), server)
        server.add_insecure_port(f"{self.host}:{PORT}")
        self.server = server
        await server.start()

    def described(self) -> cluster_service_pb2.Broker:
        described = super().described()
        described.host = self.host
        return described


class Small:
    """Three reference brokers in one process, and clients."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, nodes: int = 3) -> None:
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler, self.scheduler.rng("network"))
        self.history = History()
        self.processes: list[ClientProcess] = []
        self.topics = Topics()
        self.cluster = reference.Cluster(nodes)
        self.loop = SimLoop(self.scheduler, "brokers", lambda: 1e-4)
        self.admin = AdminClient(self.site("admin"), self.topics)
        self.reader = FinalReader(self.site("reader"))
        for node_id in range(1, nodes + 1):
            broker = SimBroker(self.cluster, node_id, self.network)
            self.loop.run(self.loop.create_task, broker.start())
        ids = itertools.count(1)
        monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(ids)))

    def start(self, client: ClientProcess) -> None:
        client.start()
        self.processes.append(client)

    def close(self) -> None:
        for client in self.processes:
            client.loop.close()
        self.loop.close()

    def site(self, host: str) -> Site:
        rng = self.scheduler.rng(host)
        return Site(self.scheduler, self.network, host, "n1:9092,n2:9092,n3:9092", rng, self.history)

    def run(self, seconds: float, done: Callable[[], bool] | None = None) -> None:
        self.scheduler.run_until(self.scheduler.now + seconds, done)

    def make(self, *names: str, partitions: int = 2) -> None:
        self.start(self.admin)
        for name in names:
            self.admin.create(name, partitions, 3)
        self.run(5, lambda: self.admin.is_idle)
        assert list(self.topics.counts) == list(names)

    def finish(self, *clients: ClientProcess) -> Content:
        """End in good order, read everything, check every rule."""
        for client in (self.admin, *clients):
            client.finish()
        self.run(40, lambda: all(client.done for client in (self.admin, *clients)))
        assert all(client.done for client in (self.admin, *clients))
        self.start(self.reader)
        self.run(20, lambda: self.reader.done)
        assert self.reader.content is not None, self.reader.last_error
        check_all(self.history, self.reader.content)
        return self.reader.content

    def outcomes(self) -> dict[Outcome, int]:
        found = [sent.outcome for sent in self.history.sent]
        return {outcome: found.count(outcome) for outcome in Outcome}


@pytest.fixture(autouse=True)
def dropped_generators() -> Iterator[None]:
    """Generators of processes that are gone are dropped, and not closed by chance."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=lambda _: None)
    yield
    sys.set_asyncgen_hooks(*hooks)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    made = Small(1, monkeypatch)
    yield made
    made.close()


def all_clients(small: Small) -> list[ClientProcess]:
    """One of each."""
    topics = small.topics
    clients: list[ClientProcess] = [
        ProducingClient(small.site("p1"), topics, options=ProducerOptions(acks="all", linger_ms=5)),
        ProducingClient(small.site("p2"), topics),
        ConsumingClient(small.site("c1"), topics),
        AppendingClient(small.site("a1"), topics),
    ]
    for client in clients:
        small.start(client)
    return clients


def test_without_faults_everything_is_acknowledged_and_read(small: Small) -> None:
    small.make("orders", "events")
    clients = all_clients(small)
    small.run(8)
    content = small.finish(*clients)
    assert small.outcomes()[Outcome.FAILED] == 0
    last = {reading.spot: reading for reading in small.history.readings}
    assert all(last[spot].rows == rows[last[spot].start :] for spot, rows in content.rows.items())
    assert small.outcomes()[Outcome.ACKED] > 100
    assert sum(map(len, content.rows.values())) >= small.outcomes()[Outcome.ACKED]
    assert sum(len(reading.rows) for reading in small.history.readings) > 100
    appended = [append.outcome for append in small.history.appended]
    assert appended.count(Outcome.ACKED) > 5 < appended.count(Outcome.FAILED)
    assert len(small.history.ends) > 5 < len(small.history.seen)
    assert len(content.rows) == 4


def test_moved_leaders_lost_answers_crashes_and_new_topics_keep_the_rules(small: Small) -> None:
    small.make("orders", "events")
    clients = all_clients(small)
    rng = random.Random(1)
    for _ in range(12):
        small.run(0.6)
        small.cluster.faults.extend(rng.choice(("cut-after", "cut-before", "NOT_ENOUGH_REPLICAS")) for _ in range(2))
        small.cluster.lead("orders", rng.randrange(2), rng.randint(1, 3), tell=rng.random() < 0.5)
        rng.choice(clients).crash_and_restart(0.2)
    small.admin.recreate("events", 1, 3)
    small.admin.grow("orders")
    small.run(4)
    content = small.finish(*clients)
    assert max(client.incarnation for client in clients) > 2
    assert [change.kind for change in small.history.changes] == ["create", "create", "delete", "create", "grow"]
    assert len(content.rows) == 2 + 1 + 1


def traced(seed: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a small world with faults; the hash of its trace."""
    small = Small(seed, monkeypatch)
    small.make("orders", "events")
    clients = all_clients(small)
    for _ in range(3):
        small.run(1)
        small.cluster.faults.extend(("cut-after", "", "NOT_ENOUGH_REPLICAS"))
        small.cluster.lead("orders", 0, 2)
        clients[0].crash_and_restart(0.2)
    small.finish(*clients)
    small.close()
    return small.scheduler.hash


def test_the_same_seed_gives_the_same_trace_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    here = traced(5, monkeypatch)
    assert traced(6, monkeypatch) != here
    program = (
        "import pytest\nfrom tests.simulation.cluster.test_clients import traced\n"
        "with pytest.MonkeyPatch.context() as patch:\n    print(traced(5, patch))\n"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            timeout=120,
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": hash_seed},
        )
        assert int(done.stdout) == here


def test_nobody_at_home_is_no_fault_of_the_client(small: Small) -> None:
    small.make("orders")
    clients = all_clients(small)
    small.run(1)
    for node in ("n1", "n2", "n3"):
        small.network.lose_host(node, silently=node == "n2")
    small.run(30)
    writing = [client for client in clients if not isinstance(client, ConsumingClient)]
    for client in writing:
        client.finish()
    small.run(60, lambda: all(client.done for client in writing))
    assert all(client.done for client in writing)
    assert Outcome.OPEN not in [sent.outcome for sent in small.history.sent]


# ---- what fails a run


def producing(small: Small) -> ProducingClient:
    client = ProducingClient(small.site("p1"), small.topics, options=ProducerOptions(delivery_timeout_ms=1_000))
    small.make("orders")
    small.start(client)
    return client


def test_a_record_that_is_never_settled_fails_the_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.client.dispatch.Dispatcher._expire", lambda *_: None)
    producing(small)
    small.run(1)
    small.network.lose_host("n1", silently=True)
    small.network.lose_host("n2", silently=True)
    small.network.lose_host("n3", silently=True)
    with pytest.raises(ClientFault, match="is not settled"):
        small.run(20)


def test_a_task_that_dies_fails_the_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("penstock.client.metadata.Metadata._refresh_when_stale", dies)
    producing(small)
    with pytest.raises(ClientFault, match="a task of the client ended") as caught:
        small.run(5)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_what_faults_do_not_explain_fails_the_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    producing(small)
    small.cluster.faults.append("INVALID_BATCH")
    with pytest.raises(ClientFault, match="INVALID_BATCH"):
        small.run(5)


def test_a_record_that_is_settled_twice_fails_the_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ProducingClient._told

    def twice(self: Any, producer: Producer, sent: Any, delivery: Delivery | None, error: PenstockError | None) -> None:
        told(self, producer, sent, delivery, error)
        told(self, producer, sent, delivery, error)

    monkeypatch.setattr(ProducingClient, "_told", twice)
    producing(small)
    with pytest.raises(ClientFault, match="settled twice"):
        small.run(5)


def test_an_exception_in_a_callback_of_the_loop_fails_the_run(small: Small) -> None:
    client = producing(small)
    client.loop.call_soon(lambda: 1 // 0)
    with pytest.raises(ClientFault, match="the loop was told"):
        small.run(5)


def test_a_fault_of_the_server_is_none_of_the_cluster(small: Small) -> None:
    client = AppendingClient(small.site("a1"), small.topics)
    small.make("orders")
    small.start(client)
    small.cluster.unary_faults.extend([Reason.INTERNAL] * 1_000)
    with pytest.raises(ClientFault, match="INTERNAL"):
        small.run(60)
