"""What must hold in a world at every moment. Each check is named after what it guards; a breach raises Violation."""

from typing import Any


class Violation(Exception):  # noqa: N818  what a checker finds, not what code does wrong
    """An invariant does not hold."""


class Invariants:
    """Watches all nodes of a world."""

    def __init__(self) -> None:
        self.committed: dict[int, tuple[int, bytes]] = {}  # index -> entry, as first committed anywhere
        self.committed_in: dict[int, int] = {}  # index -> term of the node that was first seen to have committed it
        self.states: dict[int, int] = {}  # index -> state machine's digest after it
        self.leaders: dict[int, int] = {}  # term -> node
        self.votes: dict[tuple[int, int, bytes], int] = {}  # (term, voter, its journal) -> candidate
        self.terms: dict[tuple[int, bytes], int] = {}  # (node, journal) -> highest term it spoke in
        self.applied: dict[bytes, int] = {}  # command -> its one index
        self.acknowledged: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.highest = 0

    def after_round(self, node: Any) -> None:
        """Check a node after each of its rounds."""
        machine = node.machine
        commit = machine.raftCommitIndex
        if machine._isLeader():
            self._election_safety(node, machine)
        if commit > node.seen_commit:
            self._state_machine_safety(node, commit)
        elif commit < node.seen_commit:
            raise Violation(f"commit index of node {node.id} went back from {node.seen_commit} to {commit}")

    def _election_safety(self, node: Any, machine: Any) -> None:
        term = machine.raftCurrentTerm
        if self.leaders.setdefault(term, node.id) != node.id:
            raise Violation(f"election safety: nodes {self.leaders[term]} and {node.id} lead in term {term}")
        if node.led_term != term:
            node.led_term = term
            self._leader_completeness(node)

    def _leader_completeness(self, node: Any) -> None:
        log = node.journal
        first = log[0].index
        for index, (term, command) in self.committed.items():
            if self.committed_in[index] >= node.led_term:
                continue  # a leader that learns of its votes late says nothing about later terms
            if index > log.last_index:
                raise Violation(f"leader completeness: node {node.id} leads without committed entry {index}")
            if index > first and (log[index - first].term, log[index - first].command) != (term, command):
                raise Violation(f"leader completeness: node {node.id} leads with another entry at committed {index}")

    def _state_machine_safety(self, node: Any, commit: int) -> None:
        log, start = node.journal, node.seen_commit
        first = log[0].index
        for index in range(max(start, first) + 1, commit + 1):
            entry = log[index - first]
            known = self.committed.setdefault(index, (entry.term, entry.command))
            self.committed_in.setdefault(index, node.machine.raftCurrentTerm)
            if known != (entry.term, entry.command):
                raise Violation(f"state machine safety: node {node.id} committed another entry at {index}")
        node.seen_commit = commit
        self.highest = max(self.highest, commit)

    def on_apply(self, node: Any, index: int, command: bytes, digest: int) -> None:
        """Check each command as it is applied."""
        if self.states.setdefault(index, digest) != digest:
            raise Violation(f"state machine safety: node {node.id} has another state after {index}")
        if self.applied.setdefault(command, index) != index:
            raise Violation(f"applied twice: {command!r} at {self.applied[command]} and {index}")
        if command in self.refused:
            raise Violation(f"refused, but applied: {command!r} at {index}")

    def on_restore(self, node: Any, index: int, digest: int) -> None:
        """Check each state that comes from a snapshot."""
        if self.states.get(index, digest) != digest:
            raise Violation(f"snapshot: node {node.id} restored another state as of {index}")

    def on_answer(self, command: bytes, index: int | None) -> None:
        """Check a client's certain answers: an index, or None for refused."""
        if index is None:
            self.refused.add(command)
            if command in self.applied:
                raise Violation(f"refused, but applied: {command!r} at {self.applied[command]}")
        else:
            self.acknowledged[command] = index
            if self.applied.get(command) != index:
                raise Violation(f"acknowledged at {index}, but applied at {self.applied.get(command)}: {command!r}")

    def on_send(self, node: Any, receiver: int, message: dict[str, Any]) -> None:
        """Check that what a message promises is durable, and that no vote is given twice."""
        disk, kind = node.disk, message["type"]
        term = message.get("term")
        if term is not None:
            if term > disk.state.term:
                raise Violation(f"durable term: node {node.id} speaks in term {term}, on disk is {disk.state.term}")
            spoken = self.terms.setdefault((node.id, disk.identity.journal_id), term)
            if term < spoken:
                raise Violation(f"durable term: node {node.id} went back from term {spoken} to {term}")
            self.terms[node.id, disk.identity.journal_id] = max(spoken, term)
        if kind == "next_node_idx" and message["success"] and message["next_node_idx"] - 1 > disk.last_index:
            raise Violation(
                f"durable log: node {node.id} acknowledges {message['next_node_idx'] - 1} before it is on disk"
            )
        if kind in ("request_vote", "response_vote"):
            candidate = node.id if kind == "request_vote" else receiver
            key = (message["term"], node.id, disk.identity.journal_id)
            if self.votes.setdefault(key, candidate) != candidate:
                raise Violation(f"durable vote: node {node.id} votes twice in term {message['term']}")

    def at_end(self, nodes: list[Any]) -> None:
        """Check after healing: nothing acknowledged is lost, and logs match."""
        for command, index in self.acknowledged.items():
            if self.applied.get(command) != index:
                raise Violation(f"lost: {command!r} was acknowledged at {index}")
        self.log_matching(nodes)

    @staticmethod
    def log_matching(nodes: list[Any]) -> None:
        """If two logs have the same term at an index, they agree up to there."""
        for place, one in enumerate(nodes):
            for other in nodes[place + 1 :]:
                low = max(one.journal[0].index, other.journal[0].index) + 1
                high = min(one.journal.last_index, other.journal.last_index)
                matched = False
                for index in range(high, low - 1, -1):
                    mine, theirs = (log[index - log[0].index] for log in (one.journal, other.journal))
                    matched = matched or mine.term == theirs.term
                    if matched and mine != theirs:
                        raise Violation(f"log matching: nodes {one.id} and {other.id} differ at {index}")
