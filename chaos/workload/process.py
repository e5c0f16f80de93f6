"""What all clients of a workload have: a name in the history, chance of their own, and the rules of outcomes.

Invariants: an `invoke` is in the history before the client is handed the operation; a `fail` stands only for an error
whose outcome is not unknown, by the client's contract. After an `info` the process goes on as its next incarnation,
with the same client object: what was under way under the former name ends under that. So the operations of one
incarnation were handed to one client object in the order of their invokes, all of them before the first of them became
unknown. Whoever opens a new client object for writes begins a new incarnation (`next_life`).
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock.chaos.history import Recorder
from penstock.chaos.workload.options import Access, WorkloadOptions
from penstock.client import (
    ClientClosedError,
    ExpectedOffsetMismatchError,
    InvalidRequestError,
    OutcomeUnknownError,
    PenstockError,
    TopicExistsError,
    TopicPartition,
    UnknownTopicError,
)
from penstock.client.errors import is_unknown

MESSAGE_CHARS = 240
"""Of an error's message in the history."""

REFUSALS = (ExpectedOffsetMismatchError, InvalidRequestError, TopicExistsError, UnknownTopicError)


class WorkloadError(Exception):
    """The workload is at fault, or a client breaks its contract: the run proves nothing. The message says why."""


class FinalReadError(Exception):
    """Not everything could be read in the end, within the time there was; the message says what and why."""


@dataclass(slots=True)
class Progress:
    """Counts, for a line of status."""

    acked: int = 0
    """Writes; a record of a sender is one."""
    refused: int = 0
    """Writes that a cluster in best health would have refused as well: an expected offset that somebody else took."""
    failed: int = 0
    unknown: int = 0
    skipped: int = 0
    """Records that were due and were not sent, for too many were under way."""
    read: int = 0
    """Records that readers were given."""

    def __str__(self) -> str:
        text = f"{self.acked} acknowledged, {self.read} read"
        rare = {"refused": self.refused, "failed": self.failed, "unknown": self.unknown, "not sent": self.skipped}
        return ", ".join([text, *(f"{count} {what}" for what, count in rare.items() if count)])


@dataclass(slots=True)
class Common:
    """What the processes of one workload share."""

    recorder: Recorder
    options: WorkloadOptions
    seed: int
    progress: Progress = field(default_factory=Progress)
    written: dict[TopicPartition, int] = field(default_factory=dict)
    """Partitions that were written to, and the offset after the last acknowledged record."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after `stopping`: nobody writes any more."""
    is_sound: bool = False
    """When `settled` is set: all is healed, and the cluster is whole."""
    faults: list[str] = field(default_factory=list)
    patience_s: float = 30.0
    """How long what is under way may take when the workload stops."""

    def fault(self, message: str) -> None:
        """Note that the workload or a client is at fault: `Workload.stop` raises the first of these."""
        self.faults.append(message)

    def topic(self, name: str) -> str:
        """Give a topic's name in this run."""
        return self.options.prefix + name

    def partitions(self, topics: tuple[str, ...]) -> list[TopicPartition]:
        """Give the partitions of planned topics."""
        return [
            TopicPartition(self.topic(plan.name), index)
            for plan in self.options.topics
            if plan.name in topics
            for index in range(plan.partitions)
        ]

    def droppers(self) -> set[str]:
        """Give the names of topics that drop records."""
        return {self.topic(plan.name) for plan in self.options.topics if plan.drops}

    def wrote(self, partition: TopicPartition) -> None:
        """Something is about to be written there."""
        self.written.setdefault(partition, 0)

    def acknowledged(self, partition: TopicPartition, last_offset: int) -> None:
        """Everything up to there is acknowledged."""
        if self.written[partition] <= last_offset:
            self.written[partition] = last_offset + 1


class Pending(NamedTuple):
    """A write under way."""

    op: int
    process: str
    f: str


class Process:
    """One client process. Subclasses do their work in `run`, until `stopping`."""

    def __init__(self, common: Common, host: str, role: str, number: int, access: Access) -> None:
        self.common = common
        self.recorder = common.recorder
        self.progress = common.progress
        self.access = access
        self.label = f"{host}/{role}{number}"
        self.rng = random.Random(f"{common.seed} {self.label}")  # noqa: S311 - a seed must repeat the same intents
        self.incarnation = 0
        self.name = f"{self.label}.0"

    async def run(self) -> None:
        """Work until the workload stops; nothing is under way when it returns. Raises WorkloadError."""
        raise NotImplementedError

    @property
    def is_stopping(self) -> bool:
        """No new operations are to begin."""
        return self.common.stopping.is_set()

    async def pause(self, seconds: float) -> bool:
        """Wait; False when the workload stops."""
        if self.is_stopping:
            return False
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.common.stopping.wait()
        except TimeoutError:
            return True
        return False

    def soon(self, mean_s: float | None) -> float:
        """Draw a time of the run's clock, about `mean_s` from now; never, for None."""
        return float("inf") if mean_s is None else self.recorder.now() + self.rng.uniform(0.5, 1.5) * mean_s

    def next_life(self) -> None:
        """Go on as the next incarnation."""
        self.incarnation += 1
        self.name = f"{self.label}.{self.incarnation}"

    # -- writes

    def invoke(self, f: str, **fields: Any) -> Pending:
        """Record that a write begins. Hand it to the client after that, before anything else is invoked."""
        return Pending(self.recorder.invoke(self.name, f, **fields), self.name, f)

    def ok(self, pending: Pending, **fields: Any) -> None:
        """Record a success."""
        self.progress.acked += 1
        self.recorder.complete(pending.op, pending.process, "ok", pending.f, **fields)

    def refused(self, pending: Pending, error: PenstockError) -> None:
        """Record an error as what it means: a `fail`, or an outcome that is not known.

        A record that the client's own end has kept from being sent is named by its class: no node refused it.
        """
        name = type(error).__name__ if isinstance(error, ClientClosedError) else error.reason.name
        if is_unknown(error) or isinstance(error, OutcomeUnknownError):
            self.unknown(pending, name, error.message)
            return
        if isinstance(error, REFUSALS):
            self.progress.refused += 1
        else:
            self.progress.failed += 1
        self._complete(pending, "fail", name, error.message)

    def unknown(self, pending: Pending, error: str, message: str) -> None:
        """Record an outcome that is not known."""
        self.progress.unknown += 1
        self._complete(pending, "info", error, message)
        if pending.process == self.name:
            self.next_life()

    def _complete(self, pending: Pending, kind: str, error: str, message: str) -> None:
        self.recorder.complete(
            pending.op, pending.process, kind, pending.f, error=error, message=message[:MESSAGE_CHARS]
        )
