"""Does what the failure policy says: waits, skips, writes a dead letter, or stops."""

import logging
import random
from collections.abc import Callable

from penstock.client.processing.calls import UnparsableError
from penstock.client.processing.dead_letters import DeadLetters
from penstock.client.processing.policies import Again, DeadLetter, Failure, HandlerError, Policy, Skip, decide
from penstock.client.processing.statistics import Counters
from penstock.client.records import Record
from penstock.protocol.errors import PenstockError

_LOG = logging.getLogger("penstock.client")


class Failures:
    """Used from one event loop. `letters` is there where the policy ends with a dead letter."""

    def __init__(self, policy: Policy, letters: DeadLetters | None, rng: random.Random) -> None:
        self._policy = policy
        self._letters = letters
        self._rng = rng
        self.counters = Counters()

    async def settle(self, record: Record, attempts: int, error: BaseException) -> Again | HandlerError | None:
        """Give when to call the handler again, why to stop, or None: the record counts as done."""
        failure = _failure(record, attempts, error)
        action = decide(self._policy, failure, self._rng.random())
        if isinstance(action, Again):
            self.counters.retried += 1
            return action
        if isinstance(action, Skip):
            self._skip(failure, action.on_skip)
            return None
        if isinstance(action, DeadLetter) and self._letters is not None:
            return await self._bury(failure, self._letters, action.topic)
        return _stopped(failure, "")

    def _skip(self, failure: Failure, on_skip: Callable[[Failure], None] | None) -> None:
        self.counters.skipped += 1
        _LOG.warning("skipped: %s", HandlerError(failure), exc_info=failure.error)
        if on_skip is not None:
            try:
                on_skip(failure)
            except Exception:  # noqa: BLE001 - the application's code; the record was to be skipped all the same
                _LOG.exception("on_skip raised")

    async def _bury(self, failure: Failure, letters: DeadLetters, topic: str) -> HandlerError | None:
        try:
            await letters.send(failure)
        except PenstockError as error:
            return _stopped(failure, f"and it could not be written to the dead-letter topic {topic!r}: {error}")
        self.counters.dead_lettered += 1
        _LOG.warning("to the dead-letter topic %r: %s", topic, HandlerError(failure))
        return None

    async def close(self) -> None:
        """Close the dead letters' producer."""
        if self._letters is not None:
            await self._letters.close()


def _failure(record: Record, attempts: int, error: BaseException) -> Failure:
    if isinstance(error, UnparsableError) and error.__cause__ is not None:
        return Failure(record, error.__cause__, 0, "parse")
    return Failure(record, error, attempts, "handle")


def _stopped(failure: Failure, message: str) -> HandlerError:
    stopped = HandlerError(failure, message)
    stopped.__cause__ = failure.error
    return stopped
