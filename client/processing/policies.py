"""What becomes of a record whose handler fails, or that cannot be parsed. Pure.

`Stop`, `Skip` and `DeadLetter` are ends; `Retry` calls the handler again and then has one of them as its own end.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from penstock.client.errors import InvalidRequestError
from penstock.client.records import Record
from penstock.protocol.reasons import Reason

MAX_ATTEMPTS = 1_000_000


class Failure(NamedTuple):
    """A record that could not be processed, and why."""

    record: Record
    error: BaseException
    attempts: int
    """Times that the handler was called; 0 where it was not, as the record could not be parsed."""
    stage: Literal["parse", "handle"]


class HandlerError(Exception):
    """process() stopped at a record: `failure.error` is the cause, `__cause__` too. The record is not committed."""

    def __init__(self, failure: Failure, message: str = "") -> None:
        record = failure.record
        where = f"{record.topic}-{record.partition} offset {record.offset}"
        what = (
            "cannot be parsed" if failure.stage == "parse" else f"failed in its handler ({failure.attempts} attempts)"
        )
        cause = f"{type(failure.error).__name__}: {failure.error}"
        super().__init__(f"the record at {where} {what}: {cause}" + (f"; {message}" if message else ""))
        self.failure = failure
        self.record = record


@dataclass(frozen=True, slots=True)
class Stop:
    """process() ends with HandlerError; what was done before is committed, and the record comes again next time."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The record counts as done. It is logged and counted, and `on_skip` is called on the event loop."""

    on_skip: Callable[[Failure], None] | None = None

    def __post_init__(self) -> None:
        """Refuse what would be called and never awaited."""
        if inspect.iscoroutinefunction(self.on_skip):
            raise _invalid("on_skip is a coroutine function: it is called, and not awaited")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The record goes to another topic, with the cause in its headers, and counts as done once that is acknowledged.

    `topic` must exist. `producer`: an open Producer with acks "all" of the same face; None: process() has its own. A
    record that cannot be written there stops process(): it is never dropped.
    """

    topic: str
    producer: object | None = None


End: TypeAlias = Stop | Skip | DeadLetter


@dataclass(frozen=True, slots=True)
class Retry:
    """The handler is called again, `attempts` times in all, after waits that double; then `then`.

    Records of the same key wait meanwhile; others, heartbeats and polling go on. Not for records that cannot be parsed.
    """

    attempts: int = 5
    backoff_ms: int = 100
    max_backoff_ms: int = 30_000
    then: End = field(default_factory=Stop)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise _invalid(f"attempts is {self.attempts}, not between 1 and {MAX_ATTEMPTS}")
        if not 0 <= self.backoff_ms <= self.max_backoff_ms:
            raise _invalid(f"backoff_ms is {self.backoff_ms}, not between 0 and max_backoff_ms {self.max_backoff_ms}")
        if not isinstance(self.then, (Stop, Skip, DeadLetter)):
            raise _invalid("then is none of Stop, Skip and DeadLetter")


Policy: TypeAlias = Stop | Skip | DeadLetter | Retry


class Again(NamedTuple):
    """Call the handler again after a wait."""

    delay_ms: int


def decide(policy: Policy, failure: Failure, chance: float) -> Again | End:
    """Say what to do; `chance` is in [0, 1). A handler that asks the program to end is never called again."""
    if isinstance(failure.error, (SystemExit, KeyboardInterrupt)):
        return Stop()
    if not isinstance(policy, Retry):
        return policy
    if failure.stage == "parse" or failure.attempts >= policy.attempts:
        return policy.then
    bound = min(policy.max_backoff_ms, policy.backoff_ms << min(failure.attempts - 1, 30))
    return Again(round(bound * (0.5 + chance / 2)))


def end_of(policy: Policy) -> End:
    """Give what a policy ends with."""
    return policy.then if isinstance(policy, Retry) else policy


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(Reason.INVALID_ARGUMENT, message)
