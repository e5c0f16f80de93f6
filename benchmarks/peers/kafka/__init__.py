"""Apache Kafka as a peer: three brokers in KRaft mode on loopback, and a client in Python with confluent-kafka."""

from benchmarks.peers.kafka.brokers import KafkaSystem
from benchmarks.system import Driver, System

SYNCED = {"kafka": False, "kafka-synced": True}


def system(name: str) -> System:
    """Give the brokers. Raises KeyError for an unknown name."""
    return KafkaSystem(name, synced=SYNCED[name])


def driver(name: str) -> Driver:
    """Give the client, which is the same for both names. Raises KeyError for an unknown name."""
    from benchmarks.peers.kafka.client import KafkaDriver  # noqa: PLC0415  the client may not be installed

    if name not in SYNCED:
        raise KeyError(name)
    return KafkaDriver()
