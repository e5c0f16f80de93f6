"""Crews: the members of one consumer group, and what befalls them: they join, leave, are killed, frozen, take too long.

One thing at a time, drawn from the seed, about `every_s` apart. A static member that is frozen may get a twin: somebody
takes it for dead, and starts another process by the same instance_id. When it goes on it meets that one, and leaves a
while later. When the workload stops and nobody writes any more, all places are filled, and the group has to read and
commit everything: the history says whether it has, or has stood still for DRAIN_BOUND_S. Then all leave, and the
coordinator is asked what is committed.
"""

import asyncio
from collections.abc import Mapping

from penstock.chaos.workload.group_ends import GroupEnds, Unread
from penstock.chaos.workload.lives import Life, Nursery
from penstock.chaos.workload.options import Access, Members
from penstock.chaos.workload.process import Common, Process
from penstock.chaos.workload.slots import Slot

DRAIN_BOUND_S = 60.0
"""In health, no partition that is not read to its end stands still for longer than session and rebalance take together;
nor for this."""
DRAIN_PATIENCE_S = 300.0
"""A group that goes on and has not come to the end by then is too slow for what was written: that proves nothing."""
DRAIN_POLL_S = 0.25
TWINS_S = 5.0
"""How long a member that goes on stays beside its twin."""
LEAVE_PATIENCE_S = 20.0
"""A member that has not left after this is killed."""


class Crew(Process):
    """See the module."""

    def __init__(self, common: Common, hosts: Mapping[str, Access], options: Members) -> None:
        host, access = next(iter(hosts.items()))
        super().__init__(common, host, f"{options.group}-crew", 1, access)
        self._options = options
        around = list(hosts.items())
        self._slots = [Slot(common, *_place(around, index), options) for index in range(options.count)]
        self._nursery = Nursery(options.program)
        self._thaws: set[asyncio.Task[None]] = set()
        self._replaced: list[Life] = []
        """Frozen ones that have got a twin."""

    async def open(self) -> None:
        """Bring the first members to life. Whoever opens it closes it."""
        await self._nursery.open()
        await asyncio.gather(*(slot.join(self._nursery) for slot in self._slots[: self._options.at_first]))

    async def close(self) -> None:
        """End everything that is left."""
        for thaw in self._thaws:
            thaw.cancel()
        await self._nursery.close()

    async def run(self) -> None:
        """See Process. Drains where the workload has settled in health."""
        await self._live()
        await self.common.settled.wait()
        await self._calm()
        if self.common.is_sound:
            await self._drain()
        await self._leave()
        if self.common.is_sound:
            await self._ends().note_committed(self)

    async def _live(self) -> None:
        every_s = self._options.every_s
        while await self.pause(self.rng.uniform(0.5, 1.5) * every_s if every_s else 1.0):
            if every_s:
                await self._befall(self.rng.choice(self._slots))

    async def _befall(self, slot: Slot) -> None:
        """Let something happen to a member, or let one join."""
        weights = self._options.upsets
        what = self.rng.choices(list(weights), list(weights.values()))[0]
        seconds = self.rng.uniform(*self._options.freeze_s)
        stall_s, how = self.rng.uniform(*self._options.stall_s), self.rng.choice(self._options.stalls)
        life = slot.life
        if life is None or life.is_over:
            await slot.join(self._nursery)
        elif life.is_frozen:
            if slot.is_static:
                self._replaced.append(life)
                await slot.join(self._nursery)
        elif what == "leave":
            life.leave()
        elif what == "kill":
            life.kill()
        elif what == "stall":
            life.stall(how, stall_s)
        else:
            life.freeze()
            self._thaws.add(asyncio.create_task(self._thaw(slot, seconds)))

    async def _thaw(self, slot: Slot, seconds: float) -> None:
        life = slot.life
        await self.pause(seconds)
        if life is None:
            return
        life.thaw()
        if life in self._replaced:
            await self.pause(TWINS_S)
            life.leave()

    async def _calm(self) -> None:
        """Nobody is frozen, and all are there."""
        await asyncio.gather(*self._thaws)
        for slot in self._slots:
            if slot.is_alive and slot.life is not None and slot.life.is_frozen:
                slot.life.thaw()
        await self._fill()

    async def _fill(self) -> None:
        await asyncio.gather(*(slot.join(self._nursery) for slot in self._slots if not slot.is_alive))

    async def _drain(self) -> None:
        """Wait until the group has committed everything; note whether it has, or stands still."""
        for slot in self._slots:
            slot.hurry()  # a backlog of a slow handler would be nobody's fault
        ends, pace = self._ends(), Pace(self.recorder.now())
        while pace.goes_on(await ends.unread(), self.recorder.now()):
            await asyncio.sleep(DRAIN_POLL_S)
            await self._fill()  # who had been told to leave has left
        if pace.is_too_slow:
            self.common.fault(f"group {self._options.group} reads, and was not at the end in time: {pace.unread}")
            return
        waited_s = round(pace.waited_s, 3)
        fields = {"group": self._options.group, "waited_s": waited_s, "unread": pace.unread or []}
        self.recorder.note("runner", "group_drained", drained=pace.unread == [], **fields)

    async def _leave(self) -> None:
        lives = self._replaced + [slot.life for slot in self._slots if slot.life is not None]
        for life in lives:
            life.leave()
        await asyncio.wait([asyncio.ensure_future(life.ended()) for life in lives], timeout=LEAVE_PATIENCE_S)
        for life in lives:
            life.kill()
        await asyncio.gather(*(life.ended() for life in lives))

    def _ends(self) -> GroupEnds:
        topics = [self.common.topic(name) for name in self._options.topics]
        return GroupEnds(self.access, self._options.group, topics)


class Pace:
    """Whether a group comes to the end. Pure."""

    def __init__(self, since: float) -> None:
        self.unread: Unread | None = None
        self.waited_s = 0.0
        """How long the partition that stands still longest has; in the end, how long it took."""
        self.is_too_slow = False
        self._since = since
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}
        """What was committed, and since when."""

    def goes_on(self, unread: Unread | None, now: float) -> bool:
        """Take what is not read; None: nobody says. False: it has come to the end, or stands still, or is too slow."""
        self.unread = unread
        self.waited_s = now - self._since
        if unread == []:
            return False
        for topic, partition, committed, _ in unread or []:
            former, _ = self._moved.get((topic, partition), (-1, self._since))
            if former != committed:
                since = self._since if former < 0 else now
                self._moved[topic, partition] = committed, since
        stuck = {(topic, partition) for topic, partition, *_ in unread or []} or {("", 0)}
        oldest = min(self._moved.get(one, (0, self._since))[1] for one in stuck)
        self.is_too_slow = now - self._since >= DRAIN_PATIENCE_S
        if now - oldest >= DRAIN_BOUND_S:
            self.is_too_slow, self.waited_s = False, now - oldest
            return False
        return not self.is_too_slow


def _place(hosts: list[tuple[str, Access]], index: int) -> tuple[str, int, Access]:
    host, access = hosts[index % len(hosts)]
    return host, index + 1, access
