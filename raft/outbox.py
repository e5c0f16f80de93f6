"""The consensus machine's side of the transport: what it sends in a round, and when that may leave.

Invariants: a message that depends on the journal (a vote, a request for votes, an acknowledgement) leaves after the
journal was made durable; no message at all leaves while a new term or vote is not. What a leader appended may leave
before: followers and leader then write in parallel. Order to a peer is kept. Nothing is sent to a peer not connected.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pysyncobj.transport import Transport

from penstock.raft.journal import RaftJournal
from penstock.raft.peer import PeerNode

Message = dict[str, Any]
"""A message of consensus in pysyncobj's form; `raft.messages` knows all kinds."""

_ASKS_FOR_VOTE = frozenset({"request_vote", "request_pre_vote"})
_NEEDS_JOURNAL = frozenset({"request_vote", "response_vote", "next_node_idx"})


class Wire(Protocol):
    """What carries messages to other nodes."""

    def post(self, messages: Sequence[tuple[int, Message]]) -> None:
        """Take messages (receiver, message) over; never blocks. Lost if the receiver's connection ends."""
        ...

    def has_room(self, peer: int) -> bool:
        """Whether the bounded queue to this peer takes another message."""
        ...

    def set_voters(self, addresses: dict[int, str]) -> None:
        """Keep connections to these from now on."""
        ...


class Outbox(Transport):  # type: ignore[misc]  # the library has no types
    """pysyncobj's transport, collecting messages until the end of a round."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(None, None, ())
        self._wire = wire
        self.name_journal: Callable[[int], bytes] = lambda _: (
            b""
        )  # by the candidate's configuration; set by the machine
        self._nodes: dict[int, PeerNode] = {}  # those connected
        self._pending: list[tuple[int, Message]] = []
        self._unsent: list[int] = []  # request ids of forwarded commands that did not leave

    def connected(self, peer: int) -> None:
        """Messages to this peer can leave from now on."""
        self._nodes[peer] = PeerNode(peer)
        self._onNodeConnected(self._nodes[peer])

    def disconnected(self, peer: int) -> None:
        """Whatever was under way to or from this peer is lost."""
        node = self._nodes.pop(peer, None)
        self._pending = [item for item in self._pending if item[0] != peer]
        if node is not None:
            self._onNodeDisconnected(node)

    def node(self, peer: int) -> PeerNode:
        """Return the library's form of a peer, connected or not."""
        return self._nodes.get(peer) or PeerNode(peer)

    def set_voters(self, addresses: dict[int, str]) -> None:
        """Tell the wire whom to keep connections to."""
        self._wire.set_voters(addresses)

    def send(self, node: PeerNode, message: Message) -> bool:
        """Queue a message for the end of the round; False when it cannot leave."""
        if node in self._nodes and self._wire.has_room(node):
            if message["type"] in _ASKS_FOR_VOTE:
                message["journal_id"] = self.name_journal(node)
            self._pending.append((node, message))
            return True
        if message["type"] == "apply_command" and "request_id" in message:
            self._unsent.append(message["request_id"])
        return False

    def take_unsent(self) -> list[int]:
        """Return the forwarded commands that did not leave, since the last call."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def flush(self, journal: RaftJournal) -> None:
        """End the round: let go what may, make the journal durable, let go the rest."""
        pending, self._pending = self._pending, []
        if pending and journal.dirty:
            free = 0
            if not journal.urgent:
                free = next((at for at, item in enumerate(pending) if item[1]["type"] in _NEEDS_JOURNAL), len(pending))
            if free:
                self._wire.post(pending[:free])
            pending = pending[free:]
        journal.sync()
        if pending:
            self._wire.post(pending)
