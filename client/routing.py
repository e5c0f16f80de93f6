"""The lanes of one topic, and which of them a record goes to."""

import random

from penstock.client.accumulator import RECORD_OVERHEAD, Accumulator
from penstock.client.errors import UnknownPartitionError, UnknownTopicError
from penstock.client.partitioner import next_sticky, partition_of_key
from penstock.client.produce_stream import SendLane
from penstock.protocol.reasons import Reason


class Route:
    """A topic by its id: a topic deleted and created again has another route."""

    def __init__(self, topic_id: bytes, topic: str, accumulator: Accumulator, rng: random.Random) -> None:
        self.topic_id = topic_id
        self.topic = topic
        self.lanes: list[SendLane] = []
        self.is_closed = False
        """The topic was deleted, or the producer can send no more."""
        self._accumulator = accumulator
        self._rng = rng
        self._sticky = 0

    def check_open(self) -> None:
        """Raise UnknownTopicError where nothing can be put in any more."""
        if self.is_closed:
            message = f"topic {self.topic!r} was deleted"
            raise UnknownTopicError(Reason.UNKNOWN_TOPIC, message, {"topic": self.topic})

    def lane_of(self, key: bytes | None, partition: int | None, value: bytes | None) -> SendLane:
        """Choose the lane: the partition named, else by key, else the sticky one while its batch has room."""
        lanes = self.lanes
        if partition is not None:
            if 0 <= partition < len(lanes):
                return lanes[partition]
            raise UnknownPartitionError(
                Reason.UNKNOWN_PARTITION,
                f"topic {self.topic!r} has {len(lanes)} partitions, not {partition}",
                {"topic": self.topic, "partition": str(partition)},
            )
        if key is not None:
            return lanes[partition_of_key(key, len(lanes))]
        lane = lanes[self._sticky]
        batch = lane.open
        if batch is None or batch.size + RECORD_OVERHEAD + (len(value) if value else 0) > lane.full_bytes:
            return self._turn(lane)
        return lane

    def _turn(self, full: SendLane) -> SendLane:
        """Send the sticky lane's full batch on its way and go to another lane, one with a leader where there is one."""
        if full.open is not None:
            self._accumulator.close(full)
            if full.stream is not None:
                full.stream.mark(full)
        led = [index for index, lane in enumerate(self.lanes) if lane.stream is not None]
        if led:
            present = led.index(self._sticky) if self._sticky in led else len(led)
            self._sticky = led[next_sticky(self._rng, len(led), present)]
        else:
            self._sticky = next_sticky(self._rng, len(self.lanes), self._sticky)
        return self.lanes[self._sticky]
