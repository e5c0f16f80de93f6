"""The configuration of a broker, of a topic and of the JVM: what is set, and why. The rest is Kafka's default. Pure."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import Workload
from penstock.client.ports import Port

HEAP = ("-Xmx1G", "-Xms1G")
"""KAFKA_HEAP_OPTS of kafka-server-start.sh."""
PERFORMANCE = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)
"""KAFKA_JVM_PERFORMANCE_OPTS of kafka-run-class.sh. Its log of collections and its JMX are left out."""
MAIN = "kafka.Kafka"
FORMATTER = "kafka.tools.StorageTool"

MIN_IN_SYNC = 2
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's max.message.bytes: of a batch."""
BATCH_OVERHEAD_BYTES = 4_096
"""More than what librdkafka adds to the batch.size that it was given (it promises to exceed it by no more than one
record, and the largest batches here are of 1 KiB records)."""
NO_FLUSH_MESSAGES = 2**63 - 1
"""Kafka's flush.messages: never, it leaves that to the system."""


@dataclass(frozen=True, slots=True)
class Node:
    """A broker, which is a controller too. Listens on loopback."""

    node_id: int
    port: Port
    controller_port: Port
    folder: Path

    @property
    def name(self) -> str:
        """As in tables."""
        return f"kafka-{self.node_id}"


def make_nodes(folder: Path, ports: list[Port]) -> list[Node]:
    """Give half as many nodes as there are ports, each in a folder of its own."""
    count = len(ports) // 2
    return [Node(n + 1, ports[n], ports[count + n], folder / f"kafka-{n + 1}") for n in range(count)]


def broker_properties(node: Node, nodes: list[Node], *, synced: bool) -> dict[str, str]:
    """Give server.properties. `synced`: fsync follows every append, on leader and followers, before it counts."""
    replicas = str(len(nodes))
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(node.folder / "data"),
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": str(MIN_IN_SYNC),
        "min.insync.replicas": str(MIN_IN_SYNC),
        "unclean.leader.election.enable": "false",
        "auto.create.topics.enable": "false",
    }
    if synced:
        properties["log.flush.interval.messages"] = "1"
    return properties


def properties_text(properties: dict[str, str]) -> str:
    """Give the text of a properties file."""
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def topic_config(workload: Workload) -> dict[str, str]:
    """Give what a topic sets for itself."""
    return {
        "min.insync.replicas": str(min(MIN_IN_SYNC, workload.replication)),
        "max.message.bytes": str(max(DEFAULT_MAX_MESSAGE_BYTES, workload.batch_bytes + BATCH_OVERHEAD_BYTES)),
    }


def replica_assignment(workload: Workload, brokers: int) -> list[list[int]]:
    """Give the replicas of each partition, leader first: leaders go round the brokers, as Kafka itself places them."""
    return [
        [(partition + replica) % brokers + 1 for replica in range(workload.replication)]
        for partition in range(workload.partitions)
    ]


def java_command(java: str, jars: Path, log4j: Path, main: str, arguments: list[str]) -> list[str]:
    """Give the command line of a broker or a tool."""
    logging = f"-Dlog4j2.configurationFile={log4j}"
    return [java, *HEAP, *PERFORMANCE, logging, "-cp", f"{jars}/*", main, *arguments]
