"""Consensus of one, without a disk or a thread: commands are applied when they are submitted. Failures on request."""

from collections import deque
from collections.abc import Callable

from penstock.raft.cluster import Applied
from penstock.raft.errors import OutcomeUnknown, SubmitRefused
from penstock.raft.image import MetadataImage
from penstock.raft.metadata import MetadataMachine
from penstock.raft.view import View
from tests.raft.metadata_world import CLUSTER


class FakeConsensus:
    """What the controller needs of a RaftNode."""

    cluster_id = CLUSTER

    def __init__(self, view: View) -> None:
        self.on_leadership: list[Callable[[int | None, int], None]] = []
        self.is_leader = False
        self.term = 0
        self.voters: dict[int, str] = {1: "node1:9092", 2: "node2:9092", 3: "node3:9092"}
        self.voter_journals = dict.fromkeys(self.voters, b"")
        self.machine = MetadataMachine(view.publish)
        self.index = 0
        self.failures: deque[Exception] = deque()
        """Raised by the next submits, instead of applying."""
        self.lost: deque[Exception] = deque()
        """Raised by the next submits, after applying."""
        self.before_apply: deque[Callable[[], None]] = deque()
        """Run when the next commands arrive: what another command does that comes first."""
        self.barriers = 0
        self.changes: list[tuple[str, int]] = []

    @property
    def image(self) -> MetadataImage:
        """The applied image, which the view may not show yet."""
        return self.machine.image

    def lead(self, term: int, *, leader: bool = True) -> None:
        """Change the leadership."""
        self.term, self.is_leader = term, leader
        for callback in list(self.on_leadership):
            callback(1 if leader else 2, term)

    def apply(self, command: bytes) -> bytes:
        """Apply a command of whoever it is."""
        self.index += 1
        return self.machine.apply(self.index, command)

    async def submit(self, command: bytes, timeout_s: float) -> Applied:
        """Apply, or fail as asked."""
        if self.failures:
            raise self.failures.popleft()
        if self.before_apply:
            self.before_apply.popleft()()
        result = self.apply(command)
        if self.lost:
            raise self.lost.popleft()
        return Applied(self.index, result)

    async def barrier(self, timeout_s: float) -> int:
        """Everything is applied always."""
        self.barriers += 1
        if self.failures:
            raise self.failures.popleft()
        return self.index

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Somebody else leads."""
        if self.failures:
            raise self.failures.popleft()
        self.lead(self.term + 1, leader=False)

    async def add_voter(self, node_id: int, address: str, journal_id: bytes, timeout_s: float) -> int:
        """Note the change."""
        self.changes.append(("add", node_id))
        self.voters[node_id], self.voter_journals[node_id] = address, journal_id
        return self.index

    async def remove_voter(self, node_id: int, timeout_s: float) -> int:
        """Note the change."""
        self.changes.append(("remove", node_id))
        del self.voters[node_id], self.voter_journals[node_id]
        return self.index


REFUSED = SubmitRefused("refused by the test")
UNKNOWN = OutcomeUnknown("lost by the test")
