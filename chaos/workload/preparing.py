"""Makes the topics that are written to, and waits until they can be."""

import asyncio

from penstock.chaos.workload.options import Access, TopicPlan
from penstock.chaos.workload.process import Common, Process, WorkloadError
from penstock.client import Admin, PenstockError, TopicExistsError
from penstock.client.errors import is_retriable

RETRY_S = 0.25
TIMEOUT_MS = 10_000


class Preparer(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, access: Access) -> None:
        super().__init__(common, host, "prepare", 1, access)
        self._last_error = "no answer"
        self._is_unsure = False

    async def prepare(self, patience_s: float) -> None:
        """Do it. Raises WorkloadError after `patience_s`, or where a topic cannot be made."""
        try:
            async with (
                asyncio.timeout(patience_s),
                Admin(self.access.bootstrap, timeout_ms=TIMEOUT_MS, address_map=self.access.address_map) as admin,
            ):
                for plan in self.common.options.topics:
                    await self._make(admin, plan)
                    await self._await_leaders(admin, plan)
        except TimeoutError:
            message = f"the topics could not be made within {patience_s:.0f} s; last error: {self._last_error}"
            raise WorkloadError(message) from None

    async def _make(self, admin: Admin, plan: TopicPlan) -> None:
        self._is_unsure = False
        while True:
            if await self._create(admin, plan):
                return
            await asyncio.sleep(RETRY_S)

    async def _create(self, admin: Admin, plan: TopicPlan) -> bool:
        name = self.common.topic(plan.name)
        fields = {"topic": name, "partitions": plan.partitions, "replication": plan.replication}
        config = {"config": dict(plan.config)} if plan.config else {}
        pending = self.invoke("create_topic", **fields, **config)
        try:
            topic = await admin.create_topic(name, plan.partitions, plan.replication, plan.config)
        except PenstockError as error:
            self._last_error = str(error)
            before = self.name
            self.refused(pending, error)
            if isinstance(error, TopicExistsError) and self._is_unsure:
                return True  # by the attempt whose answer was lost
            self._is_unsure = self._is_unsure or self.name != before
            if self.name == before and not is_retriable(error):
                raise WorkloadError(f"topic {name!r} cannot be made: {error}") from error
            return False
        self.ok(pending, topic_id=topic.topic_id.hex())
        return True

    async def _await_leaders(self, admin: Admin, plan: TopicPlan) -> None:
        while True:
            try:
                await admin.list_offsets(self.common.topic(plan.name))
            except PenstockError as error:
                self._last_error = str(error)
                await asyncio.sleep(RETRY_S)
            else:
                return
