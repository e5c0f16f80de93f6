"""How the client tries again: backoff with jitter, and unary calls that go from broker to broker.

Every unary call has a deadline. A call is repeated where nothing happened, or where the caller says that repeating it
does no harm; once an attempt may have had its effect, giving up is OutcomeUnknownError.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from penstock.client.clock import Clock
from penstock.client.connection import Connection, Connections
from penstock.client.errors import (
    NotLeaderError,
    OutcomeUnknownError,
    RequestTimeoutError,
    UnavailableError,
    is_retriable,
    is_unknown,
)
from penstock.client.failures import error_of_call
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

T = TypeVar("T")

INITIAL_BACKOFF_MS = 25
MAX_BACKOFF_MS = 1_000


class Backoff:
    """Doubling waits with jitter: each is 50 to 100 % of its bound, so that clients do not return in step."""

    def __init__(self, rng: random.Random, initial_ms: int = INITIAL_BACKOFF_MS, max_ms: int = MAX_BACKOFF_MS) -> None:
        self._rng = rng
        self._initial_ms = initial_ms
        self._max_ms = max_ms
        self._failures = 0

    def next_ms(self) -> float:
        """How long to wait before the next attempt."""
        bound: float = min(self._max_ms, self._initial_ms << min(self._failures, 30))
        self._failures += 1
        return bound * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._failures = 0


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a unary call is made."""

    timeout_ms: int
    """For the whole call, attempts and waits included."""
    attempt_timeout_ms: int = 10_000
    write: bool = False
    """The call changes something: without an answer its outcome is unknown."""
    repeatable: bool = True
    """Repeating it after an unknown outcome does no harm (reads, calls with a request id, absolute settings)."""


class Caller:
    """Makes unary calls on any broker that answers."""

    def __init__(
        self, connections: Connections, addresses: Callable[[], Sequence[str]], clock: Clock, rng: random.Random
    ) -> None:
        self._connections = connections
        self._addresses = addresses
        self._clock = clock
        self._rng = rng

    async def call(self, rpc: Callable[[Connection], Any], request: object, returns: type[T], policy: CallPolicy) -> T:
        """Make the call; the answer is a `returns`. Raises PenstockError, RequestTimeoutError after the timeout."""
        deadline = self._clock.monotonic_ms() + policy.timeout_ms
        backoff = Backoff(self._rng)
        last: PenstockError | None = None
        unknown = False
        while True:
            for address in self._addresses():
                left_ms = deadline - self._clock.monotonic_ms()
                if left_ms <= 0:
                    break
                try:
                    return await self._attempt(rpc, request, returns, address, min(left_ms, policy.attempt_timeout_ms))
                except UnavailableError as error:
                    last = error
                except grpc.aio.AioRpcError as failure:
                    last = error_of_call(failure, write=policy.write)
                    unknown = unknown or is_unknown(last)
                    if not (is_retriable(last) or (is_unknown(last) and policy.repeatable)):
                        raise _final(last, unknown=unknown and policy.write) from None
            wait_ms = backoff.next_ms()
            if self._clock.monotonic_ms() + wait_ms >= deadline:
                raise _given_up(last, policy, unknown=unknown and policy.write)
            await self._clock.sleep_ms(wait_ms)

    async def once(
        self,
        rpc: Callable[[Connection], Any],
        request: object,
        returns: type[T],
        address: str,
        timeout_ms: int,
        *,
        write: bool = False,
    ) -> T:
        """Make a call on one broker, without repeating it. Raises PenstockError."""
        try:
            return await self._attempt(rpc, request, returns, address, timeout_ms)
        except grpc.aio.AioRpcError as failure:
            raise error_of_call(failure, write=write) from None

    async def _attempt(
        self, rpc: Callable[[Connection], Any], request: object, returns: type[T], address: str, timeout_ms: int
    ) -> T:
        connection = await self._connections.ready(address)
        answer = await rpc(connection)(request, timeout=timeout_ms / 1000)
        if not isinstance(answer, returns):
            raise UnavailableError(Reason.NOT_SERVING, f"{address} answered with a {type(answer).__name__}")
        return answer


def _final(error: PenstockError, *, unknown: bool) -> PenstockError:
    """A definite refusal after an attempt of unknown outcome is no proof that the first one had no effect."""
    if unknown and not is_unknown(error):
        return OutcomeUnknownError(
            Reason.OUTCOME_UNKNOWN, f"an earlier attempt was not answered; the last one: {error}", error.metadata
        )
    return error


def _given_up(last: PenstockError | None, policy: CallPolicy, *, unknown: bool) -> PenstockError:
    why = str(last) if last is not None else "no broker was tried"
    if unknown:
        return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, f"not answered within {policy.timeout_ms} ms; last: {why}")
    moved = isinstance(last, NotLeaderError)  # the client's to follow: nothing that an application could act on
    if last is not None and last.reason is not Reason.NOT_SERVING and not moved and not is_unknown(last):
        return last
    return RequestTimeoutError(Reason.NOT_SERVING, f"not served within {policy.timeout_ms} ms; last: {why}")
