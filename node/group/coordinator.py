"""One led partition of __offsets in one leadership: the coordinator of its groups, from its loading to its end.

Owns the table of their offsets, the log's service and the members' shell. Invariants: nothing is answered before the
partition was read to the end found at election (rules 12, 17); what a group committed goes with the group, before
anybody can make the group anew; an instance lives for one leader epoch and is closed when that ends. Loop thread only.

    LOADING   reads the log
    ACTIVE    serves
    OVER      the leadership ended, or nothing more can be appended in it
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Set
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from penstock.node.cleanup.cleaner import WallClock
from penstock.node.group.commit_form import is_any_good, unknown_group
from penstock.node.group.commits import OffsetsLog
from penstock.node.group.committer import Committer, Ends, committed_message
from penstock.node.group.keeping import Keeper
from penstock.node.group.loading import load
from penstock.node.group.members import Members
from penstock.node.group.offsets import OffsetTable
from penstock.node.partition import AppendRequest, Done, Partition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition, MetadataImage, offsets_index
from penstock.storage import StorageError
from penstock.v1 import group_service_pb2 as pb

LOG = logging.getLogger(__name__)
LOAD_AGAIN_S = 1.0
"""After a read that failed while the leadership went on."""
EXPIRY_MAX_MS = 30_000
EXPIRY_MIN_MS = 500
"""Between two looks at what has expired: a tenth of the retention, within these bounds."""


class State(Enum):
    """See the module's table."""

    LOADING = "loading"
    ACTIVE = "active"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a coordinator needs of its node."""

    image: Callable[[], MetadataImage]
    ends: Ends
    wall: WallClock
    members: "Callable[[Coordinator], Members]"
    """Makes the shell of its members."""
    commit_timeout_ms: int
    retention_ms: int


class Coordinator:
    """`error`: why it does not serve, while it does not."""

    members: Members
    _keeper: Keeper
    _committer: Committer

    def __init__(self, partition: Partition, leader_epoch: int, node: Surroundings) -> None:
        self.partition = partition
        self.leader_epoch = leader_epoch
        self.state = State.LOADING
        self._node = node
        self._log: OffsetsLog | None = None
        self._deleting: set[str] = set()
        self._expire_ms = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._begin())

    @property
    def index(self) -> int:
        """Of the partition."""
        return self.partition.key.partition

    # ---- its life

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self) -> None:
        while True:
            try:
                table = await load(self.partition, self.leader_epoch)
                break
            except PenstockError as error:
                if error.reason in {Reason.NOT_LEADER, Reason.STALE_LEADER_EPOCH}:
                    return  # it is closed as soon as that is told
                LOG.warning("the offsets of %s cannot be read: %s", self.partition.key, error)
            except StorageError as error:
                LOG.warning("the offsets of %s cannot be read: %s", self.partition.key, error)
            await asyncio.sleep(LOAD_AGAIN_S)
        await asyncio.to_thread(self._groups)  # it takes long once: later it is remembered whose they are
        self._serve(table)

    def _serve(self, table: OffsetTable) -> None:
        log = self._log = OffsetsLog(table, self._append, self._lost)
        self._keeper = Keeper(table, log)
        node = self._node
        self._committer = Committer(log, node.ends, node.image, self._spawn, timeout_ms=node.commit_timeout_ms)
        self.members = self._committer.membership = node.members(self)
        self.state = State.ACTIVE
        self._keeper.forget_strays(node.image())
        self._keeper.note_missing(self._groups())
        LOG.info("coordinates the groups of %s in leader epoch %d", self.partition.key, self.leader_epoch)

    def _append(self, request: AppendRequest, done: Done) -> None:
        self.partition.append(request._replace(leader_epoch=self.leader_epoch), done)

    def _lost(self, error: PenstockError) -> None:
        """What was appended may or may not be committed: only the next leadership can tell."""
        text = f"the coordinator gives the group up: {error.message}"
        self.close(PenstockError(Reason.LEADER_NOT_AVAILABLE, text))

    def close(self, error: PenstockError) -> None:
        """End everything; `error` is what members and waiting commits are told."""
        if self.state is State.OVER:
            return
        former, self.state = self.state, State.OVER
        for task in self._tasks:
            task.cancel()
        if former is State.ACTIVE and self._log is not None:
            self._log.close(error)
            self._committer.close(error)
            self.members.close(error)

    def _groups(self) -> list[GroupInfo]:
        """Those that it coordinates."""
        image = self._node.image()
        count = len(image.topics[self.partition.key.topic_id].partitions)
        return [group for group in image.groups.values() if offsets_index(group.group_id, count) == self.index]

    # ---- for the members' shell

    def committed(self, group_id: str, partition: GroupPartition) -> pb.CommittedOffset | None:
        """What is committed, durably."""
        commit = self._keeper.committed(group_id, partition)
        return None if commit is None else committed_message(commit)

    def commit(self, request: pb.CommitOffsetsRequest, client_id: str) -> "asyncio.Future[list[pb.OffsetCommitResult]]":
        """See Committer.commit. Raises UNKNOWN_GROUP where a group that nobody is in was deleted meanwhile."""
        if not request.member_id and request.group_id not in self._node.image().groups:
            raise unknown_group(request.group_id)
        return self._committer.commit(request, client_id)

    def rebalanced(self, group: GroupInfo) -> None:
        """Note the group's new generation in the history."""
        self._keeper.note(group)

    # ---- for the service

    async def commit_alone(self, request: pb.CommitOffsetsRequest) -> pb.CommitOffsetsResponse:
        """Commit what comes outside of a stream. By no member: makes the group where there is none."""
        image = self._node.image()
        group = image.groups.get(request.group_id)
        if group is None and not request.member_id:
            if not is_any_good(request, image.topics):  # what is refused as a whole makes no group
                return pb.CommitOffsetsResponse(results=await self._committer.commit(request, ""))
            await self.members.ensure_group(request.group_id)
        member = None if group is None else group.members.get(request.member_id)
        results = await self.commit(request, "" if member is None else member.client_id)
        return pb.CommitOffsetsResponse(results=results)

    def offsets(
        self, group_id: str, asked: Set[GroupPartition] | None = None
    ) -> dict[GroupPartition, pb.CommittedOffset]:
        """What the group has committed, by topic and partition; `asked`: of these only."""
        commits = self._keeper.of_group(group_id)
        chosen = commits.keys() if asked is None else commits.keys() & asked
        return {partition: committed_message(commits[partition]) for partition in sorted(chosen)}

    async def delete(self, group_id: str, *, validate_only: bool) -> int:
        """Delete a group without members, and its offsets; the metadata version without it."""
        if validate_only:
            return await self.members.delete_group(group_id, validate_only=True)
        self._deleting.add(group_id)
        try:
            return await self.members.delete_group(group_id, validate_only=False)
        except PenstockError as error:
            if error.reason in {Reason.GROUP_NOT_EMPTY, Reason.UNKNOWN_GROUP}:
                self._deleting.discard(group_id)
            raise

    # ---- what happens around it

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        """The metadata changed; this leadership did not."""
        if self.state is not State.ACTIVE:
            return
        removed = set() if new.topics is old.topics else old.topics.keys() - new.topics.keys()
        if removed:
            self._keeper.forget_topics(removed)
        deleted = self._deleting - new.groups.keys()
        self._deleting -= deleted
        self._keeper.forget(deleted)
        self.members.on_image(old, new)

    def tick(self, now_ms: int) -> None:
        """Every few hundred ms. Monotonic time."""
        if self.state is not State.ACTIVE or self._log is None:
            return
        self._committer.expire(now_ms)
        self._log.try_again()
        if now_ms >= self._expire_ms:
            self._expire_ms = now_ms + min(EXPIRY_MAX_MS, max(EXPIRY_MIN_MS, self._node.retention_ms // 10))
            self._expire()

    def _expire(self) -> None:
        """Delete what is too old, unless the clock cannot say (rule 30)."""
        wall = self._node.wall
        if not wall.is_trusted():
            return
        now_ms, retention_ms = wall.now_ms(), self._node.retention_ms
        for group in self._groups():
            if group.members:
                continue
            if self._keeper.may_go(group, now_ms, retention_ms):
                self._spawn(self._delete_expired(group.group_id, now_ms))
            else:
                self._keeper.expire(partial(self._group, group.group_id), now_ms, retention_ms)

    def _group(self, group_id: str) -> GroupInfo | None:
        return self._node.image().groups.get(group_id)

    async def _delete_expired(self, group_id: str, now_ms: int) -> None:
        """Delete the group, unless something is committed since it was looked at, or is about to be."""
        group = self._group(group_id)
        if group is None or not self._keeper.may_go(group, now_ms, self._node.retention_ms):
            return
        if self.members.is_committing(group_id):
            return
        try:
            await self.delete(group_id, validate_only=False)
        except PenstockError as error:
            LOG.info("the group %r is not deleted: %s", group_id, error)
