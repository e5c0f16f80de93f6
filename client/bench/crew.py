"""The producers of a bench: one in this process, or several in processes of their own, which is what gives more load.

Both are used alike: warm up, then measure, with a tally to look at meanwhile.
"""

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from penstock.client import PenstockError
from penstock.client.bench.machine import ProcessUsage
from penstock.client.bench.plan import Phase, Plan
from penstock.client.bench.send import Sender
from penstock.client.bench.tally import Tally
from penstock.client.errors import make_error
from penstock.protocol.reasons import Reason

WORKER = (sys.executable, "-P", "-m", "penstock.client.bench.worker")
END_S = 10.0
"""How long a worker that was told to stop may take to end before it is killed."""
LINE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Measured:
    """What the producers did, and what their own processes used for it (nothing for this one)."""

    tally: Tally
    workers: Sequence[ProcessUsage] = ()


class Crew(Protocol):
    """An async context manager. `warm_up` comes before `measure`, each once."""

    @property
    def tally(self) -> Tally:
        """What is done of the phase under way."""
        ...

    async def warm_up(self) -> Tally:
        """Do what is not measured."""
        ...

    async def measure(self) -> Measured:
        """Do what is measured; all records are settled then."""
        ...

    def stop(self) -> None:
        """End the phase under way early; what is sent is still waited for."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_crew(servers: str, plan: Plan) -> Crew:
    """Give the crew of a plan."""
    return OneProducer(servers, plan) if plan.producers == 1 else Workers(servers, plan)


class OneProducer:
    """In this process, on its event loop."""

    def __init__(self, servers: str, plan: Plan) -> None:
        self._stop = asyncio.Event()
        self._plan = plan
        self._sender = Sender(servers, plan, self._stop)

    @property
    def tally(self) -> Tally:
        """See Crew."""
        return self._sender.tally

    async def warm_up(self) -> Tally:
        """See Crew."""
        return await self._sender.run(Phase(seconds=self._plan.warmup_s)) if self._plan.warmup_s else Tally()

    async def measure(self) -> Measured:
        """See Crew."""
        return Measured(await self._sender.run(self._plan.phase))

    def stop(self) -> None:
        """See Crew."""
        self._stop.set()

    async def __aenter__(self) -> Self:
        await self._sender.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sender.__aexit__(kind, error, trace)


class Workers:
    """Several processes (see `worker`)."""

    def __init__(self, servers: str, plan: Plan) -> None:
        self._workers = [_Worker(servers, plan.share(number)) for number in range(plan.producers)]

    @property
    def tally(self) -> Tally:
        """See Crew."""
        return _sum(worker.tally for worker in self._workers)

    async def warm_up(self) -> Tally:
        """See Crew."""
        answers = await self._each("warmed")
        return _sum(Tally.from_json(answer["warmed"]) for answer in answers)

    async def measure(self) -> Measured:
        """See Crew."""
        for worker in self._workers:
            worker.tally = Tally()
            worker.tell("go")
        answers = await self._each("done")
        used = [ProcessUsage(**answer["usage"]) for answer in answers]
        return Measured(_sum(Tally.from_json(answer["done"]) for answer in answers), used)

    def stop(self) -> None:
        """See Crew."""
        for worker in self._workers:
            worker.tell("stop")

    async def __aenter__(self) -> Self:
        try:
            for worker in self._workers:
                await worker.start()
        except BaseException:
            await self._end(at_once=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(at_once=kind is not None)

    async def _each(self, member: str) -> list[dict[str, Any]]:
        tasks = [asyncio.create_task(worker.hear(member)) for worker in self._workers]
        try:
            return await asyncio.gather(*tasks)
        finally:  # where one failed, nobody listens to the others any more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, *, at_once: bool) -> None:
        await asyncio.gather(*(worker.end(at_once=at_once) for worker in self._workers))


class _Worker:
    """One process, and the conversation with it."""

    def __init__(self, servers: str, plan: Plan) -> None:
        self.tally = Tally()
        self._job = json.dumps({"servers": servers, "plan": plan.to_json()})
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        # A process group of its own: the terminal's Ctrl-C does not reach it, not even before it can ignore it.
        self._process = await asyncio.create_subprocess_exec(
            *WORKER, stdin=pipe, stdout=pipe, limit=LINE_BYTES, process_group=0
        )
        self.tell(self._job)

    def tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode() + b"\n")

    async def hear(self, member: str) -> dict[str, Any]:
        """Wait for an answer; progress is taken on the way. Raises PenstockError, also where the process ended."""
        process = self._process
        if process is None or process.stdout is None:
            raise PenstockError(Reason.INTERNAL, "the producer's process was not started")
        while line := await process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if member in answer:
                return answer
            if "error" in answer:
                error = answer["error"]
                raise make_error(Reason[error["reason"]], error["message"], error["metadata"])
            self.tally = Tally.from_json(answer["progress"])
        raise PenstockError(Reason.INTERNAL, f"a producer's process ended early, with code {await process.wait()}")

    async def end(self, *, at_once: bool) -> None:
        """Leave no process: the end of its input tells it to stop; it is killed at once or where it takes too long."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            if not at_once:
                async with asyncio.timeout(END_S):
                    await process.communicate()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total
