"""Commits of one coordinator: what is asked is checked, put in order, appended and answered.

Owns the way of a commit from its request to its results. Invariants: from the check of membership on the partitions
count as in flight until the commit's fate is known (rule 31); commits of one group are appended in the order asked.
Loop thread only.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from penstock.node.clock import monotonic_ms, wall_ms
from penstock.node.group.commit_call import CommitCall
from penstock.node.group.commit_form import check_request, form_errors, unknown_topic
from penstock.node.group.commits import OffsetsLog
from penstock.node.group.records import Commit
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition, MetadataImage
from penstock.v1 import group_service_pb2 as pb

WAITING_CALLS = 10_000
"""Commit requests without an answer; more are refused."""


class Membership(Protocol):
    """Who may commit what (see members)."""

    def check_commit(
        self, group_id: str, member_id: str, generation: int, partitions: Sequence[GroupPartition]
    ) -> list[PenstockError | None]:
        """Whether the commit counts, for each partition."""
        ...

    def commit_began(self, group_id: str, partitions: Sequence[GroupPartition]) -> None:
        """A commit is in flight."""
        ...

    def commit_ended(self, group_id: str, partitions: Sequence[GroupPartition]) -> None:
        """It is no more."""
        ...


class Ends(Protocol):
    """What is known of the ends of the partitions that groups read."""

    def known(self, partition: GroupPartition) -> int:
        """An offset that the high watermark has reached."""
        ...

    async def ask(self, partitions: Sequence[GroupPartition]) -> dict[GroupPartition, int]:
        """Their high watermarks, of the leaders that answer."""
        ...


class Committer:
    """`membership` is set before the first commit. `spawn`: runs a coroutine until the coordinator ends."""

    membership: Membership

    def __init__(
        self,
        log: OffsetsLog,
        ends: Ends,
        image: Callable[[], MetadataImage],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        *,
        timeout_ms: int,
    ) -> None:
        self._log = log
        self._ends = ends
        self._image = image
        self._spawn = spawn
        self._timeout_ms = timeout_ms
        self._calls: deque[tuple[int, CommitCall]] = deque()
        """By when to be answered; some of them are."""
        self._unanswered = 0
        self._held: dict[str, deque[CommitCall]] = {}
        """Of a group, what waits for an answer about the ends, and what came behind that."""

    def commit(self, request: pb.CommitOffsetsRequest, client_id: str) -> "asyncio.Future[list[pb.OffsetCommitResult]]":
        """Begin a commit: a result for each offset, in order. Raises INVALID_ARGUMENT, OVERLOADED.

        What it is checked against is what holds now, not when the answer is awaited.
        """
        check_request(request)
        if self._unanswered >= WAITING_CALLS:
            raise PenstockError(Reason.OVERLOADED, f"{WAITING_CALLS} commits wait for their answer")
        if len(self._calls) >= 2 * WAITING_CALLS:
            self._calls = deque(waiting for waiting in self._calls if not waiting[1].answer.done())
        call = CommitCall(request, client_id, wall_ms(), self.membership.commit_ended)
        self._admit(call, request)
        if not call.answer.done():
            self._calls.append((monotonic_ms() + self._timeout_ms, call))
            self._unanswered += 1
            call.answer.add_done_callback(self._answered)
            self._route(call)
        return call.answer

    def _answered(self, answer: object) -> None:
        del answer
        self._unanswered -= 1

    def _admit(self, call: CommitCall, request: pb.CommitOffsetsRequest) -> None:
        """Refuse what may not be committed; the rest is in flight from here on."""
        call.refuse(form_errors(request, self._image().topics), in_flight=False)
        indexes = call.open()
        partitions = [call.partitions[index] for index in indexes]
        if not partitions:
            return
        found = self.membership.check_commit(request.group_id, request.member_id, request.generation, partitions)
        refused = {index: error for index, error in zip(indexes, found, strict=True) if error is not None}
        accepted = [call.partitions[index] for index in indexes if index not in refused]
        if accepted:
            self.membership.commit_began(call.group_id, accepted)
        call.refuse(refused, in_flight=False)

    def _route(self, call: CommitCall) -> None:
        held = self._held.get(call.group_id)
        if held is not None:
            held.append(call)
        elif self._beyond(call):
            self._held[call.group_id] = deque((call,))
            self._spawn(self._ask_in_turn(call.group_id))
        else:
            self._submit(call)

    def _beyond(self, call: CommitCall) -> dict[int, GroupPartition]:
        """The offsets that may be beyond the log, as far as this node knows."""
        known = self._ends.known
        return {
            index: call.partitions[index]
            for index in call.open()
            if call.commits[index].offset > known(call.partitions[index])
        }

    async def _ask_in_turn(self, group_id: str) -> None:
        """Ask for all that waits by then at once: a leader that is silent holds the group up once, not for each."""
        held = self._held[group_id]
        while held:
            beyond = [self._beyond(call) for call in held]
            unknown = list(dict.fromkeys(partition for one in beyond for partition in one.values()))
            ends = await self._ends.ask(unknown) if unknown else {}
            for one in beyond:
                call = held.popleft()
                call.refuse(_above_end(call, one, ends) | _vanished(call, self._image()), in_flight=True)
                self._submit(call)
        self._held.pop(group_id, None)

    def _submit(self, call: CommitCall) -> None:
        for part in call.parts():
            try:
                self._log.submit(part)
            except PenstockError as error:
                part.done(error)

    # ---- time

    def expire(self, now_ms: int) -> None:
        """Answer those that wait too long. Monotonic time."""
        while self._calls and (self._calls[0][0] <= now_ms or self._calls[0][1].answer.done()):
            self._calls.popleft()[1].expire()

    def close(self, error: PenstockError) -> None:
        """The log is closed: refuse what has not come to it, and answer what it does not answer."""
        for held in self._held.values():
            for call in held:
                call.refuse(dict.fromkeys(call.open(), error), in_flight=True)
        self._held.clear()
        for _, call in self._calls:
            call.expire()
        self._calls.clear()


def committed_message(commit: Commit) -> pb.CommittedOffset:
    """As the API shows it."""
    return pb.CommittedOffset(
        offset=commit.offset,
        leader_epoch=commit.leader_epoch,
        metadata=commit.metadata,
        commit_time_ms=commit.commit_time_ms,
        member_id=commit.member_id,
        generation=commit.generation,
    )


def _above_end(
    call: CommitCall, beyond: dict[int, GroupPartition], ends: dict[GroupPartition, int]
) -> dict[int, PenstockError]:
    """Refusals of what is beyond the end; whose end nobody tells is taken as it is."""
    errors = {}
    for index, partition in beyond.items():
        end, offset = ends.get(partition), call.commits[index].offset
        if end is not None and offset > end:
            text = f"offset {offset} is above the end {end} of partition {partition.partition}"
            errors[index] = PenstockError(Reason.OFFSET_ABOVE_END, text, {"high_watermark": str(end)})
    return errors


def _vanished(call: CommitCall, image: MetadataImage) -> dict[int, PenstockError]:
    """Refusals of what was deleted meanwhile: its offsets are deleted already."""
    gone = [index for index in call.open() if call.partitions[index].topic_id not in image.topics]
    return {index: unknown_topic(call.partitions[index].topic_id) for index in gone}
