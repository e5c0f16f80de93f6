"""A simulated client process: an event loop and a host of its own, and what a real client is given there.

It fails the run where the client breaks what it documents: an error that faults do not explain, a task that dies.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import grpc

from penstock.client import (
    OutcomeUnknownError,
    PenstockError,
    UnavailableError,
    UnknownPartitionError,
    UnknownTopicError,
)
from penstock.client.seams import ChannelOptions, Seams
from penstock.protocol.reasons import Reason
from tests.simulation.cluster.clocks import EPOCH_S
from tests.simulation.cluster.history import History, Outcome
from tests.simulation.kernel.loop import SimLoop
from tests.simulation.kernel.network import Network
from tests.simulation.kernel.rpc import SimChannel
from tests.simulation.kernel.scheduler import Scheduler

LAG_S = 0.0004
"""A turn of a client begins up to this long after its cause."""
CLOSE_TIMEOUT_S = 30.0
ALLOWED = (UnavailableError, OutcomeUnknownError, UnknownTopicError, UnknownPartitionError)
"""What faults explain for every operation: not served in time, not answered, or the topic is gone or not known yet."""


class ClientFault(Exception):  # noqa: N818  what a checker finds, as Violation
    """A client did what it says it never does."""


@dataclass
class Topics:
    """The topics that clients use, and how many partitions each has at least. Shared by the clients of a world."""

    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """Where a client process runs, and what it is given."""

    scheduler: Scheduler
    network: Network
    host: str
    bootstrap: str
    rng: random.Random
    history: History


class LoopClock:
    """The clocks of a process."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def monotonic_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def wall_ms(self) -> int:
        return int((EPOCH_S + self._loop.time()) * 1000)

    async def sleep_ms(self, duration_ms: float) -> None:
        await asyncio.sleep(duration_ms / 1000)


class ClientProcess:
    """A process on a host. Subclasses say in `work` what it does until `stopping` is set.

    `start` begins, `finish` asks for an orderly end, `done` says that it came; `crash` ends the process at once.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.history = site.history
        self.rng = site.rng
        self.incarnation = 0
        self.done = False
        self.finishing = False
        self.loop = SimLoop(site.scheduler, site.host, self._lag)
        self.stopping: asyncio.Event
        self._names = 0

    @property
    def name(self) -> str:
        """Of this incarnation."""
        return f"{self.site.host}.{self.incarnation}"

    @property
    def now(self) -> float:
        return self.site.scheduler.now

    # ---- from outside

    def start(self) -> None:
        """Begin, with a new loop."""
        self.incarnation += 1
        self.loop = SimLoop(self.site.scheduler, self.site.host, self._lag)
        self.loop.after_turn = self._look_at_errors
        self.loop.run(self._begin)

    def finish(self) -> None:
        """End in good order."""
        self.finishing = True
        if self.incarnation and not self.loop.is_closed():
            self.loop.call_soon(self.stopping.set)

    def crash(self) -> None:
        """The process is gone, at once."""
        if not self.loop.is_closed():
            self.site.scheduler.trace(self.site.host, "crash")
            self.loop.close()
            self.site.network.lose_host(self.site.host, silently=False)

    def crash_and_restart(self, after_s: float) -> None:
        """Crash, and run again a while later, as a new incarnation."""
        if self.incarnation and not self.done and not self.finishing and not self.loop.is_closed():
            self.crash()
            self.site.scheduler.after(after_s, self._restart)

    # ---- for subclasses

    async def work(self) -> None:
        """Run until `stopping` is set. What this raises fails the run."""
        raise NotImplementedError

    def seams(self) -> Seams:
        """Time, chance, names and channels of this process."""
        return Seams(clock=LoopClock(self.loop), rng=self.rng, dial=self._dial, unique=self._unique, watchdog=None)

    async def pause(self, mean_s: float) -> bool:
        """Wait a while; False when the process is to end."""
        delay_s = min(self.rng.expovariate(1 / mean_s), 5 * mean_s)
        try:
            async with asyncio.timeout(delay_s):
                await self.stopping.wait()
        except TimeoutError:
            return True
        return False

    def trace(self, *facts: object) -> None:
        self.site.scheduler.trace(self.name, *facts)

    def fault(self, text: str, cause: BaseException | None = None) -> None:
        """Fail the run; what a process does in its death is no matter."""
        if self.loop.is_closed():
            return
        error = ClientFault(f"{self.name}: {text}")
        error.__cause__ = cause
        self.site.scheduler.fail(error)

    def tolerate(self, error: PenstockError, allowed: tuple[type[PenstockError], ...], what: str) -> Outcome:
        """Say what an error means for the operation; the run fails where faults of the world do not explain it."""
        if error.reason is Reason.INTERNAL or not isinstance(error, allowed):
            self.fault(f"{what}: {type(error).__name__}: {error}", error)
        return Outcome.UNKNOWN if isinstance(error, OutcomeUnknownError) else Outcome.FAILED

    def look_after(self, tasks: "list[asyncio.Task[None]]") -> None:
        """Tasks that live as long as their client must not end before it."""
        for task in tasks:
            if task.done():
                error = None if task.cancelled() else task.exception()
                self.fault(f"a task of the client ended: {task.get_coro()}", error)

    # ---- inside

    def _begin(self) -> None:
        self.stopping = asyncio.Event()
        if self.finishing:
            self.stopping.set()
        self.loop.create_task(self._run())

    def _restart(self) -> None:
        if self.loop.is_closed():
            self.start()

    async def _run(self) -> None:
        try:
            await self.work()
        except Exception as error:  # noqa: BLE001  it goes to the scheduler, which raises it
            self.fault(f"{type(error).__name__}: {error}", error)
        self.done = not self.loop.is_closed()

    def _look_at_errors(self) -> None:
        if self.loop.errors:
            context = self.loop.errors[0]
            self.fault(f"the loop was told: {context.get('message')}", context.get("exception"))

    def _lag(self) -> float:
        return LAG_S * self.rng.random()

    def _dial(self, address: str, _: grpc.ChannelCredentials | None, options: ChannelOptions) -> Any:
        return SimChannel(self.site.network, self.site.host, address, options)

    def _unique(self) -> str:
        self._names += 1
        return f"{self.name}-{self._names}-{self.rng.getrandbits(32):08x}"
