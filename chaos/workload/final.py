"""The final reading: everything that was written, from the start, in both isolations, after all faults are healed.

It goes to the end that the leader names. Where that is below an acknowledged offset, it asks again for a while, then it
takes the leader's word: the end stands in the history, and the checker says what that means. Whatever breaks off is
tried again until patience ends; reading then goes on where it stopped.

Topics that drop records are read first, from where the leader says that they begin, and again from there where that
moves meanwhile. After that their leaders are asked once more: a replica may be compacted further than another one, so
the checker wants to know whether all was read from one, and how fast.
"""

import asyncio
from typing import NamedTuple

from penstock.chaos.workload.ends import ask_ends, ask_starts
from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, FinalReadError, Process
from penstock.chaos.workload.reading import Reading, is_anomaly
from penstock.client import Admin, Consumer, PenstockError, TopicPartition
from penstock.client.records import Isolation
from penstock.protocol.reasons import Reason

HOST = "final"
ISOLATIONS: tuple[Isolation, ...] = ("read_uncommitted", "read_committed")
ASK_TIMEOUT_MS = 5_000
POLL_TIMEOUT_S = 2.0
MOST_RECORDS = 5_000
RETRY_S = 0.25
SHORT_PATIENCE_S = 15.0
"""How long an end below an acknowledged offset is not taken for the last word."""
IDLE_POLLS = 10
"""Polls in a row that give nothing, after which a new consumer is opened."""


class _Goal(NamedTuple):
    """Where each partition's log ends."""

    ends: dict[TopicPartition, int]

    def missing(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        """Give the partitions that are not read to the end, with position and end."""
        return {p: (at, end) for p, end in self.ends.items() if (at := positions.get(p, 0)) < end}


class FinalReader(Process):
    """Reads all in one isolation. See the module."""

    def __init__(self, common: Common, number: int, access: Access, isolation: Isolation) -> None:
        super().__init__(common, HOST, "read", number, access)
        self.last_error = "no answer"
        self.reading = Reading(self, isolation, final=True, drops=True)
        self._droppers = common.droppers()

    async def read(self, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> None:
        """Read to these ends; runs until it has all, or is cancelled."""
        goal = _Goal(ends)
        self.reading.begin(dict.fromkeys(ends, 0) | starts)
        while goal.missing(self.reading.positions):
            consumer = self.reading.consumer(self.access)
            await consumer.open()
            try:
                await self.reading.resume(consumer)
                await self._read(consumer, goal)
            except PenstockError as error:
                self.last_error = str(error)
                if is_anomaly(error, drops=True):
                    return  # it stands in the history
                if error.reason is Reason.OFFSET_BELOW_START and not await self._follow_starts():
                    self.reading.note_failure(error)
                    return
                await asyncio.sleep(RETRY_S)
            finally:
                await consumer.close()

    async def _follow_starts(self) -> bool:
        """Go on where logs begin now that are to lose records; False: none begins above the position in it."""
        positions = self.reading.positions
        topics = sorted({partition.topic for partition in positions} & self._droppers)
        try:
            async with Admin(self.access.bootstrap, timeout_ms=ASK_TIMEOUT_MS) as admin:
                found = {
                    TopicPartition(topic, index): start
                    for topic in topics
                    for index, start in (await ask_starts(self, admin, topic)).items()
                }
        except PenstockError:
            return True  # nobody says: the next poll fails again
        moved = {p: start for p, start in found.items() if p in positions and positions[p] < start}
        self.reading.begin(moved)
        return bool(moved)

    async def _read(self, consumer: Consumer, goal: _Goal) -> None:
        idle = 0
        while idle < IDLE_POLLS and goal.missing(self.reading.positions):
            idle = 0 if await self.reading.poll(consumer, MOST_RECORDS, POLL_TIMEOUT_S) else idle + 1

    def missing(self, ends: dict[TopicPartition, int]) -> str:
        """Say what has not been read."""
        left = [f"{p.topic}-{p.partition} {at} of {end}" for p, (at, end) in self._left(ends).items()]
        return f"{self.reading.isolation}: {', '.join(left)} (last error: {self.last_error})" if left else ""

    def _left(self, ends: dict[TopicPartition, int]) -> dict[TopicPartition, tuple[int, int]]:
        return _Goal(ends).missing(self.reading.positions)


class FinalReading:
    """See the module."""

    def __init__(self, common: Common, bootstrap: str) -> None:
        access = Access(bootstrap)
        self._common = common
        self._asker = Process(common, HOST, "ends", 1, access)
        self._last_error = "no answer"
        self._readers = [FinalReader(common, n, access, isolation) for n, isolation in enumerate(ISOLATIONS, 1)]

    async def run(self, patience_s: float) -> None:
        """Read everything. Raises FinalReadError after `patience_s`."""
        ends: dict[TopicPartition, int] = {}
        try:
            async with asyncio.timeout(patience_s):
                await self._find_ends(ends, min(SHORT_PATIENCE_S, patience_s / 2))
                droppers = self._common.droppers()
                losing = {partition: end for partition, end in ends.items() if partition.topic in droppers}
                starts = await self._find_starts(losing)
                await asyncio.gather(*(reader.read(starts, losing) for reader in self._readers))
                await self._find_starts(losing)
                others = {partition: end for partition, end in ends.items() if partition not in losing}
                await asyncio.gather(*(reader.read({}, others) for reader in self._readers))
        except TimeoutError:
            raise FinalReadError(self._why(ends, patience_s)) from None
        for (topic, partition), end in sorted(ends.items()):
            self._common.recorder.note("runner", "end_of_log", topic=topic, partition=partition, offset=end)

    async def _find_ends(self, ends: dict[TopicPartition, int], short_patience_s: float) -> None:
        """Ask for all ends, until none is below what is acknowledged, or they were asked for twice and for so long."""
        until_s, times = self._common.recorder.now() + short_patience_s, 0
        async with Admin(self._asker.access.bootstrap, timeout_ms=ASK_TIMEOUT_MS) as admin:
            while True:
                for topic in self._unknown_topics(ends, short=times < 2 or self._common.recorder.now() < until_s):
                    try:
                        found = await ask_ends(self._asker, admin, topic, "read_uncommitted")
                    except PenstockError as error:
                        self._last_error = str(error)
                    else:
                        ends.update({TopicPartition(topic, index): end for index, end in found.items()})
                times += 1
                if not self._unknown_topics(ends, short=times < 2 or self._common.recorder.now() < until_s):
                    return
                await asyncio.sleep(RETRY_S)

    async def _find_starts(self, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Ask for the starts of logs that lose records, until all are known."""
        starts: dict[TopicPartition, int] = {}
        async with Admin(self._asker.access.bootstrap, timeout_ms=ASK_TIMEOUT_MS) as admin:
            for topic in sorted({partition.topic for partition in ends}):
                while not any(partition.topic == topic for partition in starts):
                    try:
                        found = await ask_starts(self._asker, admin, topic)
                    except PenstockError as error:
                        self._last_error = str(error)
                        await asyncio.sleep(RETRY_S)
                    else:
                        starts |= {TopicPartition(topic, index): start for index, start in found.items()}
        return {partition: start for partition, start in starts.items() if partition in ends}

    def _unknown_topics(self, ends: dict[TopicPartition, int], *, short: bool) -> list[str]:
        """Topics with ends that are not known; with `short`, also those that end below what is acknowledged."""
        return sorted(
            {
                partition.topic
                for partition, acknowledged in self._common.written.items()
                if partition not in ends or (short and ends[partition] < acknowledged)
            }
        )

    def _why(self, ends: dict[TopicPartition, int], patience_s: float) -> str:
        unknown = self._unknown_topics(ends, short=False)
        if unknown:
            what = f"the ends of {', '.join(unknown)} are not known (last error: {self._last_error})"
        else:
            what = "; ".join(filter(None, (reader.missing(ends) for reader in self._readers)))
        return f"the final reading was not complete after {patience_s:.0f} s: {what}"
