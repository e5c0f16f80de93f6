"""What is asked of the brokers as an administrator: to answer, to make a topic, to lead in turn."""

import time
from collections import Counter
from collections.abc import Callable

from confluent_kafka import ElectionType, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package's exports are not marked as such
    AdminClient,
    ConfigResource,
    NewTopic,
    TopicMetadata,
)

from benchmarks.peers.kafka.config import NO_FLUSH_MESSAGES, replica_assignment, topic_config
from benchmarks.workloads import Workload

REQUEST_TIMEOUT_S = 30.0
SERVING_TIMEOUT_S = 60.0
"""For brokers to be known, or for a topic to have its leaders."""
_POLL_S = 0.1
_FATAL_ONLY = 2
"""log_level: brokers that are starting refuse connections, which is no news."""


class Administrator:
    """A connection to the brokers."""

    def __init__(self, bootstrap: str) -> None:
        self._client = AdminClient({"bootstrap.servers": bootstrap, "log_level": _FATAL_ONLY})

    def wait_brokers(self, count: int) -> None:
        """Return when `count` brokers serve. Raises TimeoutError."""
        _wait(lambda: len(self._client.list_topics(timeout=REQUEST_TIMEOUT_S).brokers) == count, f"{count} brokers")

    def create(self, workload: Workload, brokers: int) -> None:
        """Make the topic of a workload and wait until it is led as assigned, and all its replicas are in sync."""
        topic = NewTopic(
            workload.name,
            num_partitions=workload.partitions,
            replica_assignment=replica_assignment(workload, brokers),
            config=topic_config(workload),
        )
        self._client.create_topics([topic], request_timeout=REQUEST_TIMEOUT_S)[workload.name].result()
        _wait(lambda: self._is_ready(workload, brokers), f"leaders of {workload.name}")

    def lead_as_assigned(self, workload: Workload, brokers: int) -> None:
        """Give every partition its first replica as a leader again, after brokers were gone."""
        wanted = [TopicPartition(workload.name, partition) for partition in range(workload.partitions)]
        _wait(lambda: self._are_in_sync(workload), f"replicas of {workload.name}")
        self._client.elect_leaders(ElectionType.PREFERRED, wanted).result()  # its timeouts raise SystemError
        _wait(lambda: self._is_ready(workload, brokers), f"leaders of {workload.name}")

    def check_flush(self, topic: str, *, synced: bool) -> None:
        """Raise ValueError where the topic's flush.messages, as the brokers have it, is not what the mode says."""
        _wait(lambda: self._flush_messages(topic) is not None, f"configuration of {topic}")
        found, wanted = self._flush_messages(topic), str(1 if synced else NO_FLUSH_MESSAGES)
        if found != wanted:
            raise ValueError(f"flush.messages of {topic} is {found}, not {wanted}")

    def _flush_messages(self, topic: str) -> str | None:
        """Give the topic's flush.messages; None where the broker that is asked has not heard of the topic yet."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            answer = self._client.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)[resource].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise
        return str(answer["flush.messages"].value)

    def _topic(self, workload: Workload) -> TopicMetadata | None:
        return self._client.list_topics(workload.name, timeout=REQUEST_TIMEOUT_S).topics.get(workload.name)

    def _are_in_sync(self, workload: Workload) -> bool:
        topic = self._topic(workload)
        return (
            topic is not None
            and len(topic.partitions) == workload.partitions
            and all(len(partition.isrs) == workload.replication for partition in topic.partitions.values())
        )

    def _is_ready(self, workload: Workload, brokers: int) -> bool:
        topic = self._topic(workload)
        if topic is None or not self._are_in_sync(workload):
            return False
        wanted = Counter(replicas[0] for replicas in replica_assignment(workload, brokers))
        return Counter(partition.leader for partition in topic.partitions.values()) == wanted


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SERVING_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {SERVING_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)
