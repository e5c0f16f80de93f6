"""Who the controller has heard from, and when: the table behind fencing. Pure; times are monotonic ms.

Owns no decision that outlives this controller: fencing is a command. A new controller begins with an empty table and
one fresh session for every node (`grant`).
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class NodeSession:
    """One node's."""

    deadline_ms: int
    heard_ms: int | None = None
    """Last heartbeat or registration that this controller received."""
    refused_ms: int | None = None
    """When its address refused a connection, if it has not been heard from since."""


@dataclass
class Sessions:
    """Sessions by node id. A node is overdue when silent past its session, or dead by refusal and not heard since."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    _nodes: dict[int, NodeSession] = field(default_factory=dict)

    def grant(self, node_id: int, now_ms: int) -> None:
        """Begin a session with a node that was not heard from yet."""
        self._nodes[node_id] = NodeSession(now_ms + self.session_timeout_ms)

    def heard(self, node_id: int, now_ms: int) -> None:
        """Note a heartbeat or a registration."""
        self._nodes[node_id] = NodeSession(now_ms + self.session_timeout_ms, now_ms)

    def refused(self, node_id: int, now_ms: int) -> None:
        """Note that nothing listens at the node's address."""
        session = self._nodes.get(node_id)
        if session is not None and session.refused_ms is None:
            session.refused_ms = now_ms

    def postpone(self, pause_ms: int) -> None:
        """Move every time on by a pause of the controller's own: heartbeats that wait to be read are no silence."""
        for session in self._nodes.values():
            session.deadline_ms += pause_ms
            session.heard_ms = None if session.heard_ms is None else session.heard_ms + pause_ms

    def forget(self, node_id: int) -> None:
        """End the session."""
        self._nodes.pop(node_id, None)

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._nodes

    def is_overdue(self, node_id: int, now_ms: int) -> bool:
        """Whether the node is to be fenced now.

        A refusal alone kills a node that this controller never heard from. One that has been sending heartbeats is
        given time for the next, half as long again: its address may be what is wrong (a proxy, a rule), not the node.
        """
        session = self._nodes.get(node_id)
        if session is None:
            return False
        if now_ms >= session.deadline_ms:
            return True
        return session.refused_ms is not None and (
            session.heard_ms is None or now_ms - session.heard_ms > self._late_after_ms
        )

    def is_late(self, node_id: int, now_ms: int) -> bool:
        """Whether a heartbeat is missing, so that it is worth looking whether the node is there at all."""
        session = self._nodes.get(node_id)
        if session is None or session.refused_ms is not None:
            return False
        return session.heard_ms is None or now_ms - session.heard_ms > self._late_after_ms

    def is_silent(self, node_id: int, now_ms: int) -> bool:
        """Whether a node of this id could be started elsewhere without two running: nothing was heard for a while."""
        session = self._nodes.get(node_id)
        if session is None or session.heard_ms is None or session.refused_ms is not None:
            return True
        return now_ms >= session.deadline_ms

    @property
    def _late_after_ms(self) -> int:
        return self.heartbeat_interval_ms * 3 // 2
