"""A whole workload: makes the topics, starts the clients, stops them, reads everything in the end.

Owns the tasks of the processes. A process that ends by an exception, or a client that breaks its contract, is a
WorkloadError: it is raised by `stop`, and `failure` says so before.
"""

import asyncio
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from penstock.chaos.history import Recorder
from penstock.chaos.workload.appenders import Appender
from penstock.chaos.workload.changers import Changer
from penstock.chaos.workload.crews import DRAIN_PATIENCE_S, Crew
from penstock.chaos.workload.ends import EndWatcher
from penstock.chaos.workload.final import FinalReading
from penstock.chaos.workload.observers import Observer
from penstock.chaos.workload.options import Access, WorkloadOptions
from penstock.chaos.workload.preparing import Preparer
from penstock.chaos.workload.process import Common, Process, Progress, WorkloadError
from penstock.chaos.workload.readers import Reader
from penstock.chaos.workload.rereaders import Rereader
from penstock.chaos.workload.senders import Sender
from penstock.chaos.workload.trimmers import Trimmer

PREPARE_PATIENCE_S = 120.0


class Workload:
    """See the module. Call prepare, start, stop, final, in this order; `stop` also when any of them failed."""

    def __init__(
        self,
        recorder: Recorder,
        access: Mapping[str, Access],
        options: WorkloadOptions,
        seed: int,
        observed: Mapping[int, str] | None = None,
    ) -> None:
        """`access`: how each clients' host reaches the cluster. `observed`: nodes to watch, past proxies."""
        if not access:
            raise WorkloadError("a workload needs at least one host for its clients")
        self._common = Common(recorder, options, seed)
        self._access = dict(access)
        self._observed = dict(observed or {})
        self._tasks: dict[asyncio.Task[None], Process] = {}
        self._crews: list[Crew] = []

    @property
    def progress(self) -> Progress:
        """Counts up to now."""
        return self._common.progress

    @property
    def failure(self) -> str | None:
        """What is wrong with the workload itself; None: nothing."""
        for task, process in self._tasks.items():
            if task.done() and not task.cancelled() and task.exception() is not None:
                error = task.exception()
                return f"{process.name} ended: {type(error).__name__}: {error}"
        return next(iter(self._common.faults), None)

    async def prepare(self, patience_s: float = PREPARE_PATIENCE_S) -> None:
        """Make the topics, with a leader for each partition, and the first members of groups. Raises WorkloadError."""
        host, access = next(iter(self._access.items()))
        await Preparer(self._common, host, access).prepare(patience_s)
        for members in self._common.options.members:
            crew = Crew(self._common, self._access, members)
            self._crews.append(crew)
            try:
                await crew.open()
            except (OSError, TimeoutError) as error:
                raise WorkloadError(f"no member of group {members.group} comes to life: {error}") from error

    def start(self) -> None:
        """Start the clients."""
        for process in self._processes():
            self._begin(process)
        for node_id, address in self._observed.items():
            self.observe(node_id, address)

    def observe(self, node_id: int, address: str) -> None:
        """Observe one more node, from now on."""
        self._begin(Observer(self._common, node_id, address))

    async def stop(self, patience_s: float, *, is_sound: bool = False) -> None:
        """Begin no more operations; return when all are settled, or after about `patience_s`, the rest unknown.

        `is_sound`: the cluster is whole, so consumer groups have to read everything, which takes its time.
        Raises WorkloadError where the workload itself failed.
        """
        self._common.patience_s = patience_s
        self._common.stopping.set()
        crews = {task for task, process in self._tasks.items() if isinstance(process, Crew)}
        await _wait(self._tasks.keys() - crews, patience_s + 5)
        self._common.is_sound = is_sound
        self._common.settled.set()
        await _wait(crews, patience_s + DRAIN_PATIENCE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(crew.close() for crew in self._crews))
        if self.failure is not None:
            raise WorkloadError(self.failure)

    async def final(self, bootstrap: str, patience_s: float) -> None:
        """Read everything that was written, past all proxies. Raises FinalReadError after `patience_s`."""
        await FinalReading(self._common, bootstrap).run(patience_s)

    def _begin(self, process: Process) -> None:
        self._tasks[asyncio.create_task(process.run(), name=process.label)] = process

    def _processes(self) -> Iterator[Process]:
        """Make all clients, over the hosts in turn."""
        common, options = self._common, self._common.options
        hosts = list(self._access.items())
        senders = [group for group in options.senders for _ in range(group.count)]
        for index, group in enumerate(senders):
            host, access = hosts[index % len(hosts)]
            yield Sender(common, host, index + 1, access, group)
        parts = (
            (Appender, options.appenders.count),
            (Reader, options.readers.count),
            (EndWatcher, options.ends.count),
            (Changer, options.changers.count),
            (Rereader, options.rereaders.count),
            (Trimmer, options.trimmers.count),
        )
        for kind, count in parts:
            for index in range(count):
                host, access = hosts[index % len(hosts)]
                yield kind(common, host, index + 1, access)
        yield from self._crews


async def _wait(tasks: AbstractSet[asyncio.Task[None]], timeout_s: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s)
