"""The client that makes and changes topics, and looks at them and at the ends of their logs."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from penstock.client import Admin, InvalidRequestError, PenstockError, TopicExistsError, UnknownTopicError
from tests.simulation.cluster.history import EndSeen, Outcome, Spot, TopicChange, TopicSeen
from tests.simulation.cluster.process import ALLOWED, ClientProcess, Site, Topics

LATE_S = 3.0
"""After which no request sent before the faults ended has an effect any more."""
T = TypeVar("T")


class AdminClient(ClientProcess):
    """Runs what it is asked to, one thing after the other; in between it looks at topics and at the ends of logs."""

    def __init__(self, site: Site, topics: Topics, *, looks_per_s: float = 4.0) -> None:
        super().__init__(site)
        self.topics = topics
        self._per_s = looks_per_s
        self._asked: list[Callable[[Admin], Coroutine[Any, Any, None]]] = []
        self._made: dict[str, tuple[int, int, dict[str, Any]]] = {}
        self._perhaps_deleted: dict[str, None] = {}

    # ---- from outside; each is done when its turn comes

    def create(self, name: str, partitions: int, replicas: int, config: Mapping[str, Any] | None = None) -> None:
        """Create a topic, trying again while that does no harm; clients use it from then on."""
        self._asked.append(functools.partial(self._create, name, partitions, replicas, dict(config or {})))

    def recreate(self, name: str, partitions: int, replicas: int, config: Mapping[str, Any] | None = None) -> None:
        """Delete a topic and create another one of this name."""
        self._asked.append(functools.partial(self._delete, name))
        self.create(name, partitions, replicas, config)

    def alter(self, name: str, config: Mapping[str, Any]) -> None:
        """Change settings."""
        self._asked.append(functools.partial(self._alter, name, dict(config)))

    def grow(self, name: str) -> None:
        """Add a partition."""
        self._asked.append(functools.partial(self._grow, name))

    @property
    def is_idle(self) -> bool:
        """Nothing of what was asked is left to be done."""
        return not self._asked

    # ---- inside

    async def work(self) -> None:
        admin = Admin(self.site.bootstrap, timeout_ms=self.rng.choice((1_000, 4_000, 15_000)))
        admin._seams = self.seams()
        await admin.open()
        while await self.pause(1 / self._per_s) or self._asked:
            if self._asked:
                await self._asked[0](admin)
                del self._asked[0]
            elif self.topics.counts:
                await self._look(admin)
        await self._make_again(admin)
        await admin.close()

    async def _look(self, admin: Admin) -> None:
        name = self.rng.choice(list(self.topics.counts))
        if self.rng.random() < 0.6:
            await self._list_ends(admin, name)
        else:
            await self._describe(admin, name)

    async def _describe(self, admin: Admin, name: str) -> None:
        began = self.now
        try:
            topic = await admin.describe_topic(name)
        except UnknownTopicError:
            self.history.seen.append(TopicSeen(self.name, name, None, 0, began, self.now))
        except PenstockError as error:
            self.tolerate(error, ALLOWED, f"describing {name}")
        else:
            seen = TopicSeen(self.name, name, topic.topic_id, len(topic.partitions), began, self.now)
            self.history.seen.append(seen)

    async def _list_ends(self, admin: Admin, name: str) -> None:
        began = self.now
        try:
            found = await admin.list_offsets(name)
        except PenstockError as error:
            self.tolerate(error, ALLOWED, f"listing the offsets of {name}")
            return
        session = admin._session
        known = session.metadata.catalog.topics.get(name) if session is not None else None
        if known is not None:
            for end in found:
                spot = Spot(known.topic_id, end.partition)
                self.history.ends.append(EndSeen(self.name, spot, name, end.offset, began, self.now))
            self.trace("ends", name, [end.offset for end in found])

    async def _change(
        self, admin: Admin, change: TopicChange, call: Awaitable[T], allowed: tuple[type[PenstockError], ...] = ()
    ) -> T | None:
        """Note what became of a change, and look at it at once; None where it failed."""
        self.history.changes.append(change)
        answer = None
        try:
            answer = await call
        except PenstockError as error:
            change.outcome = self.tolerate(error, (*ALLOWED, *allowed), f"{change.kind} {change.name}")
            change.error = str(error)
        else:
            change.outcome = Outcome.ACKED
        change.ended = self.now
        self.trace(change.kind, change.name, change.outcome.value)
        if change.outcome is Outcome.ACKED:
            change.topic_id = getattr(answer, "topic_id", None)
            await self._describe(admin, change.name)
        return answer

    async def _create(self, name: str, partitions: int, replicas: int, config: dict[str, Any], admin: Admin) -> None:
        self._made[name] = partitions, replicas, config
        while True:
            change = TopicChange(self.name, "create", name, self.now, partitions=partitions)
            call = admin.create_topic(name, partitions, replicas, config)
            topic = await self._change(admin, change, call, (TopicExistsError, InvalidRequestError))
            if topic is not None or change.error.startswith("TOPIC_EXISTS"):
                self.topics.counts[name] = partitions if topic is None else len(topic.partitions)
                return
            if not change.error.startswith("INVALID_REPLICATION_FACTOR") and change.error.startswith("INVALID"):
                self.fault(f"creating {name}: {change.error}")
            await asyncio.sleep(0.2)

    async def _delete(self, name: str, admin: Admin) -> None:
        change = TopicChange(self.name, "delete", name, self.now)
        await self._change(admin, change, admin.delete_topic(name))
        if change.outcome is Outcome.UNKNOWN:
            self._perhaps_deleted[name] = None

    async def _make_again(self, admin: Admin) -> None:
        """The topics are there in the end, though a deletion of unknown outcome may have come late."""
        if self._perhaps_deleted:
            await asyncio.sleep(LATE_S)
        for name in self._perhaps_deleted:
            await self._create(name, *self._made[name], admin)

    async def _alter(self, name: str, config: dict[str, Any], admin: Admin) -> None:
        change = TopicChange(self.name, "alter", name, self.now)
        # Refused where it asks for more than there are replicas.
        await self._change(admin, change, admin.alter_topic(name, config), (InvalidRequestError,))

    async def _grow(self, name: str, admin: Admin) -> None:
        partitions = self.topics.counts[name] + 1
        change = TopicChange(self.name, "grow", name, self.now, partitions=partitions)
        topic = await self._change(admin, change, admin.add_partitions(name, partitions), (InvalidRequestError,))
        if topic is not None:
            self.topics.counts[name] = len(topic.partitions)
