"""One CommitOffsets request on its way: its offsets in parts, its result for each of them in the order asked.

Owns the results. A part is what goes into one batch. When its time is over the call is answered, not ended: what was
appended stays under way, and counts as in flight until its fate is known (rule 31).
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from penstock.node.group.commits import Staged
from penstock.node.group.offsets import is_stale
from penstock.node.group.records import Commit, CommitRecord, OffsetsRecord
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition
from penstock.v1 import group_service_pb2 as pb

PART_OFFSETS = 500
PART_METADATA_BYTES = 512 * 1024

Ended = Callable[[str, Sequence[GroupPartition]], None]


class CommitCall:
    """`ended`: told of partitions whose commit is in flight no more. `answer` is set once."""

    def __init__(self, request: pb.CommitOffsetsRequest, client_id: str, now_ms: int, ended: Ended) -> None:
        self.group_id = request.group_id
        self.partitions = [GroupPartition(item.topic_id, item.partition) for item in request.offsets]
        self.commits = [
            Commit(
                item.offset,
                item.leader_epoch if item.HasField("leader_epoch") else None,
                item.metadata,
                now_ms,
                request.member_id,
                client_id,
                request.generation,
                request.sequence,
            )
            for item in request.offsets
        ]
        self.answer: asyncio.Future[list[pb.OffsetCommitResult]] = asyncio.get_running_loop().create_future()
        self._ended = ended
        self._errors: list[PenstockError | None] = [None] * len(self.commits)
        self._open = set(range(len(self.commits)))

    def open(self) -> list[int]:
        """Indexes of the offsets without a result, in order."""
        return sorted(self._open)

    def refuse(self, errors: dict[int, PenstockError], *, in_flight: bool) -> None:
        """Settle these: nothing of them was or will be appended. `in_flight`: they counted as such until now."""
        if in_flight and errors:
            self._ended(self.group_id, [self.partitions[index] for index in errors])
        for index, error in errors.items():
            self._errors[index] = error
        self._settle(errors)

    def parts(self) -> "Iterator[CommitPart]":
        """All that is open, as work for the log."""
        indexes: list[int] = []
        size = 0
        for index in self.open():
            indexes.append(index)
            size += len(self.commits[index].metadata)
            if len(indexes) >= PART_OFFSETS or size >= PART_METADATA_BYTES:
                yield CommitPart(self, indexes)
                indexes, size = [], 0
        if indexes:
            yield CommitPart(self, indexes)

    def settle(self, indexes: Sequence[int], error: PenstockError | None) -> None:
        """The fate of these is known, or will never be (OUTCOME_UNKNOWN): then they stay in flight."""
        if error is None or error.reason is not Reason.OUTCOME_UNKNOWN:
            self._ended(self.group_id, [self.partitions[index] for index in indexes])
        for index in indexes:
            self._errors[index] = self._errors[index] or error
        self._settle(indexes)

    def _settle(self, indexes: "Sequence[int] | dict[int, PenstockError]") -> None:
        self._open.difference_update(indexes)
        if not self._open and not self.answer.done():
            self.answer.set_result([_result(error) for error in self._errors])

    def expire(self) -> None:
        """The time is over: answer OUTCOME_UNKNOWN for what has no result yet."""
        if self.answer.done():
            return
        text = "the replicas of __offsets did not acknowledge the commit in time"
        unknown = PenstockError(Reason.OUTCOME_UNKNOWN, text)
        errors = [unknown if index in self._open else error for index, error in enumerate(self._errors)]
        self.answer.set_result([_result(error) for error in errors])


class CommitPart:
    """Some offsets of a call."""

    begins = False

    def __init__(self, call: CommitCall, indexes: Sequence[int]) -> None:
        self._call = call
        self._indexes = indexes
        self._stale: dict[int, PenstockError] = {}

    def make(self, staged: Staged) -> Sequence[OffsetsRecord]:
        """Leave out what comes late."""
        call, records = self._call, []
        for index in self._indexes:
            partition, commit = call.partitions[index], call.commits[index]
            if is_stale(staged.committed(call.group_id, partition), commit):
                text = f"a commit with a higher sequence than {commit.sequence} came before"
                self._stale[index] = PenstockError(Reason.STALE_COMMIT, text)
            else:
                records.append(CommitRecord(call.group_id, partition, commit))
        return records

    def done(self, error: PenstockError | None) -> bool:
        """See Work. Whoever asked may ask again: nothing is owed."""
        if self._stale:
            self._call.refuse(self._stale, in_flight=True)
        self._call.settle([index for index in self._indexes if index not in self._stale], error)
        return False


def _result(error: PenstockError | None) -> pb.OffsetCommitResult:
    return pb.OffsetCommitResult() if error is None else pb.OffsetCommitResult(error=to_status(error))
