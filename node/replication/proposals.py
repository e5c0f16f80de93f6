"""Sends ISR changes and resignations of this node's leaders to the controller, many in one request.

A change is sent again, unaltered, until its fate is known: applied or superseded (the view will show it) or refused for
good (rule 5). Nothing is sent for a leadership that is over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from penstock.internal.v1 import controller_pb2, metadata_pb2
from penstock.node.replication.events import IsrProposal
from penstock.node.replication.shell import ReplicaShell
from penstock.protocol.errors import PenstockError

LOG = logging.getLogger(__name__)
RETRY_PAUSE_MS = 200
CHANGES_PER_REQUEST = 1_000

Alter = Callable[[controller_pb2.AlterPartitionsRequest], Awaitable[controller_pb2.AlterPartitionsResponse]]
"""Raises PenstockError where the outcome is unknown or there is no controller."""

_BY_VIEW = {
    metadata_pb2.REFUSAL_UNSPECIFIED,
    metadata_pb2.REFUSAL_STALE,
    metadata_pb2.REFUSAL_NOT_LEADER,
    metadata_pb2.REFUSAL_UNKNOWN_TOPIC,
    metadata_pb2.REFUSAL_UNKNOWN_PARTITION,
}
"""Answers after which the view decides."""


class Proposals:
    """The queue of a node, and the task that empties it."""

    def __init__(self, alter: Alter, fatal: Callable[[BaseException], None]) -> None:
        self._alter = alter
        self._fatal = fatal
        self._changes: dict[ReplicaShell, IsrProposal] = {}
        self._resignations: dict[ReplicaShell, int] = {}
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def propose(self, replica: ReplicaShell, proposal: IsrProposal) -> None:
        """Queue an ISR change; it replaces an earlier one of the partition."""
        self._changes[replica] = proposal
        self._start()

    def resign(self, replica: ReplicaShell, leader_epoch: int) -> None:
        """Queue a resignation."""
        self._resignations[replica] = leader_epoch
        self._start()

    def _start(self) -> None:
        self._due.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fatal(error)

    async def close(self) -> None:
        """Send nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            changes = self._live_changes()
            resignations = self._live_resignations()
            if not changes and not resignations:
                continue
            try:
                response = await self._alter(_request(changes, resignations))
            except (PenstockError, TimeoutError) as error:
                LOG.info("changes of partitions wait for the controller: %s", error)
                await asyncio.sleep(RETRY_PAUSE_MS / 1000)
                self._due.set()
                continue
            for (replica, proposal), result in zip(changes, response.changes, strict=True):
                self._settle(replica, proposal, result)
            for replica, leader_epoch in resignations:
                if self._resignations.get(replica) == leader_epoch:
                    del self._resignations[replica]

    def _live_changes(self) -> list[tuple[ReplicaShell, IsrProposal]]:
        for replica, proposal in list(self._changes.items()):
            leader = None if replica.core is None else replica.core.leader
            if leader is None or leader.pending != proposal:
                del self._changes[replica]
        changes = list(self._changes.items())
        if len(changes) > CHANGES_PER_REQUEST:
            self._due.set()
        return changes[:CHANGES_PER_REQUEST]

    def _live_resignations(self) -> list[tuple[ReplicaShell, int]]:
        for replica, leader_epoch in list(self._resignations.items()):
            leader = None if replica.core is None else replica.core.leader
            if leader is None or leader.leader_epoch != leader_epoch:
                del self._resignations[replica]
        return list(self._resignations.items())[:CHANGES_PER_REQUEST]

    def _settle(self, replica: ReplicaShell, proposal: IsrProposal, result: metadata_pb2.ChangeResult) -> None:
        if self._changes.get(replica) == proposal:
            del self._changes[replica]
        if result.refusal in _BY_VIEW:
            return
        LOG.info("ISR change of %s to %s refused: %s", replica.key, proposal.isr, result.detail)
        replica.on_proposal_refused(proposal)


def _request(
    changes: list[tuple[ReplicaShell, IsrProposal]], resignations: list[tuple[ReplicaShell, int]]
) -> controller_pb2.AlterPartitionsRequest:
    request = controller_pb2.AlterPartitionsRequest()
    for replica, proposal in changes:
        change = request.changes.add(
            topic_id=replica.key.topic_id,
            partition=replica.key.partition,
            leader=proposal.leader,
            leader_epoch=proposal.leader_epoch,
            partition_epoch=proposal.partition_epoch,
            isr=proposal.isr,
            lost=proposal.lost,
        )
        for node_id, node_epoch in proposal.node_epochs:
            change.node_epochs.add(node_id=node_id, node_epoch=node_epoch)
    for replica, leader_epoch in resignations:
        request.resignations.add(
            topic_id=replica.key.topic_id,
            partition=replica.key.partition,
            leader=replica.node_id,
            leader_epoch=leader_epoch,
        )
    return request
