"""The lanes of one topic, and which of them a record goes to."""

import random

from penstock.client.accumulator import RECORD_OVERHEAD, Accumulator
from penstock.client.errors import InvalidRequestError, UnknownPartitionError, UnknownTopicError
from penstock.client.partitioner import KEY_CACHE, next_sticky, partition_of_key
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
        self.sticky: SendLane
        """Where records without a key go while its batch has room; there from the first lane on. In a compacted topic
        a lane that never has a batch, so that each of them comes to `lane_of`, which refuses it."""
        self._no_lane = SendLane(topic_id, topic, -1)
        self._needs_keys = False
        self._lanes_of_keys: dict[bytes, SendLane] = {}
        """Of recent keys, KEY_CACHE at most."""

    def add(self, lane: SendLane) -> None:
        """Take the next partition's lane: keys have other partitions from now on."""
        if not self.lanes:
            self.sticky = lane
        self.lanes.append(lane)
        self._lanes_of_keys.clear()

    def require_keys(self, needed: bool) -> None:
        """Say whether the topic is compacted, now that it has lanes."""
        if needed is not self._needs_keys:
            self._needs_keys = needed
            self.sticky = self._no_lane if needed else self.lanes[0]

    def check_open(self) -> None:
        """Raise UnknownTopicError where nothing can be put in any more."""
        if self.is_closed:
            message = f"topic {self.topic!r} was deleted"
            raise UnknownTopicError(Reason.UNKNOWN_TOPIC, message, {"topic": self.topic})

    def lane_of(self, key: bytes | None, partition: int | None, value: bytes | None) -> SendLane:
        """Choose the lane: the partition named, else by key, else the sticky one while its batch has room.

        Raises UnknownPartitionError, and InvalidRequestError for a record without a key in a compacted topic.
        """
        if partition is not None:
            if key is None and self._needs_keys:
                raise self._keyless()
            if 0 <= partition < len(self.lanes):
                return self.lanes[partition]
            raise UnknownPartitionError(
                Reason.UNKNOWN_PARTITION,
                f"topic {self.topic!r} has {len(self.lanes)} partitions, not {partition}",
                {"topic": self.topic, "partition": str(partition)},
            )
        if key is not None:
            return self._lanes_of_keys.get(key) or self._lane_of_key(key)
        lane = self.sticky
        if lane is self._no_lane:
            raise self._keyless()
        batch = lane.open
        if batch is None or batch.room < (RECORD_OVERHEAD if value is None else RECORD_OVERHEAD + len(value)):
            return self._turn(lane)
        return lane

    def last_lane(self, partition: int | None) -> SendLane:
        """Give the lane that `lane_of` chose last for a record without a key."""
        return self.sticky if partition is None else self.lanes[partition]

    def _keyless(self) -> InvalidRequestError:
        message = f"topic {self.topic!r} is compacted: every record must have a key"
        return InvalidRequestError(Reason.KEY_REQUIRED, message, {"topic": self.topic})

    def _lane_of_key(self, key: bytes) -> SendLane:
        lane = self.lanes[partition_of_key(key, len(self.lanes))]
        if len(self._lanes_of_keys) >= KEY_CACHE:
            self._lanes_of_keys.clear()
        self._lanes_of_keys[key] = lane
        return lane

    def _turn(self, full: SendLane) -> SendLane:
        """Send the sticky lane's full batch on its way and go to another lane, one with a leader where there is one."""
        if full.open is not None:
            self._accumulator.close(full)
            if full.stream is not None:
                full.stream.mark(full)
        led = [lane for lane in self.lanes if lane.stream is not None] or self.lanes
        present = led.index(full) if full in led else len(led)
        self.sticky = led[next_sticky(self._rng, len(led), present)]
        return self.sticky
