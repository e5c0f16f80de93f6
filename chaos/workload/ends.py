"""End watchers: ask the leaders where the logs end, in both isolations, and begin, and note each answer."""

import contextlib
from collections.abc import Collection

from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.client import Admin, PenstockError
from penstock.client.records import Isolation

TIMEOUT_MS = 4_000
ISOLATIONS: tuple[Isolation, ...] = ("read_uncommitted", "read_committed")


async def ask_ends(
    process: Process, admin: Admin, topic: str, isolation: Isolation, partitions: Collection[int] | None = None
) -> dict[int, int]:
    """Ask for the ends of a topic's partitions, all or these, and note them; by partition. Raises PenstockError."""
    began = process.recorder.now()
    found = await admin.list_offsets(topic, "latest", partitions=partitions, isolation=isolation)
    for end in found:
        process.recorder.read(
            process.name,
            "end_offset",
            began,
            topic=topic,
            partition=end.partition,
            isolation=isolation,
            offset=end.offset,
            leader_epoch=end.leader_epoch,
        )
    return {end.partition: end.offset for end in found}


async def ask_starts(process: Process, admin: Admin, topic: str) -> dict[int, int]:
    """Ask for the starts of a topic's partitions and note them; by partition. Raises PenstockError."""
    began = process.recorder.now()
    found = await admin.list_offsets(topic, "earliest")
    for start in found:
        process.recorder.read(
            process.name,
            "start_offset",
            began,
            topic=topic,
            partition=start.partition,
            offset=start.offset,
            leader_epoch=start.leader_epoch,
        )
    return {start.partition: start.offset for start in found}


class EndWatcher(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access) -> None:
        super().__init__(common, host, "ends", number, access)
        self._options = common.options.ends

    async def run(self) -> None:
        """See Process."""
        async with Admin(self.access.bootstrap, timeout_ms=TIMEOUT_MS, address_map=self.access.address_map) as admin:
            while await self.pause(self._options.every_s):
                if self._options.one_by_one:
                    one = self.rng.choice(self.common.partitions(self._options.topics))
                    await self._ask(admin, one.topic, [one.partition])
                    continue
                for name in self._options.topics:
                    await self._ask(admin, self.common.topic(name))

                for name in self._options.starts:
                    with contextlib.suppress(PenstockError):
                        await ask_starts(self, admin, self.common.topic(name))

    async def _ask(self, admin: Admin, topic: str, partitions: Collection[int] | None = None) -> None:
        try:
            await ask_ends(self, admin, topic, self.rng.choice(ISOLATIONS), partitions)
        except PenstockError:
            return  # nobody could say: the next one asks again
