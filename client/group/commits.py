"""Commits offsets at the coordinator: one request at a time, repeated under one sequence until its fate is known.

Shell around CommitQueue. A partition that the member has no more is dropped from what is repeated. Owns one task.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from penstock.client.connection import Connection
from penstock.client.errors import (
    CommitFailedError,
    OutcomeUnknownError,
    RequestTimeoutError,
    error_of,
    is_retriable,
    is_unknown,
)
from penstock.client.group.commit_queue import CommitBatch, CommitQueue, Offsets, OnSettled
from penstock.client.group.coordinator import Coordinator
from penstock.client.group.holds import Key
from penstock.client.records import TopicPartition
from penstock.client.retry import Backoff
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

ATTEMPT_TIMEOUT_MS = 5_000
_GONE = frozenset(
    {
        Reason.UNKNOWN_MEMBER,
        Reason.STALE_GENERATION,
        Reason.PARTITION_NOT_OWNED,
        Reason.INSTANCE_FENCED,
        Reason.UNKNOWN_GROUP,
    }
)


class Committer(NamedTuple):
    """As whom a member commits."""

    group: str
    member_id: str
    generation: int


class CommitHost(Protocol):
    """What commits ask of their reader."""

    def committer(self) -> Committer:
        """As whom to commit now."""

    def key_of(self, partition: TopicPartition) -> Key | None:
        """The partition's topic id and index; None where the member does not have it."""

    def committed(self, offsets: Offsets) -> None:
        """These are durable."""


class Commits:
    """See the module. Used from one event loop."""

    def __init__(self, coordinator: Coordinator, session: ClientSession, host: CommitHost, timeout_ms: int) -> None:
        self._coordinator = coordinator
        self._session = session
        self._host = host
        self._timeout_ms = timeout_ms
        self._queue = CommitQueue()
        self._news = asyncio.Event()

    def add(self, offsets: Offsets, on_settled: OnSettled) -> None:
        """Commit these after those added before; `on_settled` is called once their fate is known."""
        self._queue.add(offsets, on_settled)
        self._news.set()

    def check_room(self) -> None:
        """BufferFullError where too many commits wait for one more that nobody waits for."""
        self._queue.check_room()

    async def commit(self, offsets: Offsets) -> dict[TopicPartition, PenstockError]:
        """Commit these; gives those that failed, with why. Cancelling ends the waiting only."""
        done: asyncio.Future[dict[TopicPartition, PenstockError]] = asyncio.get_running_loop().create_future()

        def settled(errors: dict[TopicPartition, PenstockError]) -> None:
            if not done.done():
                done.set_result(errors)

        self.add(offsets, settled)
        return await done

    def drop(self, partitions: Iterable[TopicPartition], why: PenstockError) -> None:
        """The member has these no more."""
        self._queue.drop(partitions, commit_failed(why, names(partitions)))
        self._news.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            batch = self._queue.take()
            if batch is None:
                self._news.clear()
                await self._news.wait()
            else:
                await self._send(batch)

    async def _send(self, batch: CommitBatch) -> None:
        deadline_ms = self._session.clock.monotonic_ms() + self._timeout_ms
        backoff = Backoff(self._session.rng)
        unknown, last = False, None
        while batch.left:
            left_ms = deadline_ms - self._session.clock.monotonic_ms()
            if left_ms <= 0:
                self._settle(batch, dict.fromkeys(batch.left, _given_up(last, self._timeout_ms, unknown=unknown)))
                return
            last = await self._attempt(batch, min(left_ms, ATTEMPT_TIMEOUT_MS)) or last
            unknown = unknown or (last is not None and is_unknown(last))
            if batch.left:
                await self._session.clock.sleep_ms(min(backoff.next_ms(), max(1, left_ms)))
        self._settle(batch, {})

    async def _attempt(self, batch: CommitBatch, timeout_ms: float) -> PenstockError | None:
        """Try once; gives why something is left, for another attempt."""
        request, asked = self._request(batch)
        if not asked:
            return None
        address = ""
        try:
            address = await self._coordinator.address(timeout_ms)
            answer = await self._session.caller.once(
                _commit, request, pb.CommitOffsetsResponse, address, int(timeout_ms), write=True
            )
        except PenstockError as error:
            self._coordinator.failed(address, error)
            if is_retriable(error) or is_unknown(error):
                return error
            self._settle(batch, dict.fromkeys(asked, error))
            return None
        return self._results(batch, asked, [result.error for result in answer.results])

    def _request(self, batch: CommitBatch) -> tuple[pb.CommitOffsetsRequest, list[TopicPartition]]:
        who = self._host.committer()
        request = pb.CommitOffsetsRequest(
            group_id=who.group, member_id=who.member_id, generation=who.generation, sequence=batch.sequence
        )
        asked: list[TopicPartition] = []
        for partition, point in list(batch.left.items()):
            key = self._host.key_of(partition)
            if key is None:
                continue  # it was dropped, or is about to be
            asked.append(partition)
            request.offsets.add(
                topic_id=key[0],
                partition=key[1],
                offset=point.offset,
                leader_epoch=point.leader_epoch,
                metadata=point.metadata,
            )
        if len(asked) < len(batch.left):
            why = PenstockError(Reason.PARTITION_NOT_OWNED, "the member does not have it")
            self._settle(batch, {p: why for p in batch.left if p not in asked})
        return request, asked

    def _results(self, batch: CommitBatch, asked: list[TopicPartition], statuses: list[object]) -> PenstockError | None:
        results: dict[TopicPartition, PenstockError | None] = {}
        again: PenstockError | None = None
        for partition, status in zip(asked, statuses, strict=True):
            error = None if not status.ByteSize() else error_of(status)  # type: ignore[attr-defined]  # a message
            if error is not None and (is_retriable(error) or is_unknown(error)):
                again = error
            else:
                results[partition] = error
        self._settle(batch, results)
        return again

    def _settle(self, batch: CommitBatch, results: Mapping[TopicPartition, PenstockError | None]) -> None:
        good = {p: batch.left[p] for p, error in results.items() if error is None and p in batch.left}
        if good:
            self._host.committed(good)
        told = {p: error and commit_failed(error, names([p])) for p, error in results.items()}
        self._queue.settle(told)


def commit_failed(error: PenstockError, what: str) -> PenstockError:
    """Make the error of a commit for what the member has no more; others stay as they are."""
    if error.reason not in _GONE or isinstance(error, CommitFailedError):
        return error
    text = f"nothing was committed for {what}: {error.message}. Whoever has it now begins at the offset committed last."
    return CommitFailedError(error.reason, text + " Poll on, and do not repeat the commit", error.metadata)


def _given_up(last: PenstockError | None, timeout_ms: int, *, unknown: bool) -> PenstockError:
    text = f"offsets were not committed within {timeout_ms} ms; last: {last or 'no coordinator is known'}"
    if unknown:
        return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, text)
    return RequestTimeoutError(Reason.NOT_SERVING, text)


def names(partitions: Iterable[TopicPartition]) -> str:
    """Name partitions for people, the first few of them."""
    given = [f"{topic}-{index}" for topic, index in partitions]
    return ", ".join(given[:5]) + (f" and {len(given) - 5} more" if len(given) > 5 else "")


def _commit(connection: Connection) -> object:
    return connection.groups.CommitOffsets
