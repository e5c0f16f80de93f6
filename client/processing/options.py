"""Settings of process(), checked once. Units are in the names."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

from penstock.client.checks import between, invalid, one_of
from penstock.client.processing.policies import DeadLetter, Policy, Retry, Skip, Stop
from penstock.client.records import Record

Handler: TypeAlias = Callable[[Any], object]
"""Called with a record, or with what `parse` made of it. A coroutine function runs on the event loop, any other in a
thread. What it gives back is not looked at; that it gives anything back means that the record is done."""
Parse: TypeAlias = Callable[[Record], object]


class ProcessOptions(TypedDict, total=False):
    """Keyword arguments of Consumer.process; see ProcessConfig."""

    concurrency: int
    parse: Parse | None
    on_failure: Policy
    max_in_flight: int
    commit_interval_ms: int
    keyless: Literal["partition", "any"]
    cancel_lost: bool


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """Settings of process() and their defaults."""

    concurrency: int = 8
    """Handlers that run at the same time."""
    parse: Parse | None = None
    """Makes of a record what the handler is called with. Where it raises, the record has failed, without retries."""
    on_failure: Policy = field(default_factory=Stop)
    """Stop(), Skip(), Retry(...) or DeadLetter(topic)."""
    max_in_flight: int = 1000
    """Records taken and not below their partition's commit position: what a crash may repeat."""
    commit_interval_ms: int = 1000
    """Between two commits in the background."""
    keyless: Literal["partition", "any"] = "partition"
    """Records without a key: in the order of their partition, or in any."""
    cancel_lost: bool = True
    """Cancel asynchronous handlers of partitions that were lost; plain ones cannot be."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        between("concurrency", self.concurrency, 1, 10_000)
        between("max_in_flight", self.max_in_flight, 1, 1_000_000)
        between("commit_interval_ms", self.commit_interval_ms, 1, 1 << 31)
        one_of("keyless", self.keyless, ("partition", "any"))
        if not isinstance(self.on_failure, (Stop, Skip, Retry, DeadLetter)):
            raise invalid(f"on_failure is {self.on_failure!r}, none of Stop(), Skip(), Retry(), DeadLetter()")
        if self.parse is not None and inspect.iscoroutinefunction(self.parse):
            raise invalid("parse is asynchronous: wait for nothing there, but in the handler")
