"""The consensus machine, part two: terms, votes and leadership (see `raft.core` for the classes' name).

Invariants: a vote counts once and only from a voter of the configuration in force. A node whose journal was formatted
to join (rule 27) votes and stands only by a configuration that names this very journal: committed (then until another
one is named), in its own log, or in the candidate's. Whose log has such a configuration has the removal of the journal
before, too, so no leader elected with that one's votes is missed; and without the candidate's word for it, a voter
added to a single one could never be heard if power went before it got the entry. A node stands only after a majority
said that it would vote for it, and nobody says so who has heard from a leader within the shortest election timeout
(pre-vote, Raft thesis 9.6).
"""

from pysyncobj import FAIL_REASON

from penstock.raft import core
from penstock.raft.core import FOLLOWER, LEADER, Callback, clock
from penstock.raft.journal import RaftJournal
from penstock.raft.outbox import Message, Outbox
from penstock.raft.peer import PeerNode

NEVER = float("-inf")


class SyncObj(core.SyncObj):
    """Elections."""

    __raftState: int
    __raftCurrentTerm: int
    __votedForNodeId: int | None
    __raftLeader: PeerNode | None
    __raftElectionDeadline: float
    __transferInProgress: bool
    __raftLog: RaftJournal
    __otherNodes: set[PeerNode]
    __readonlyNodes: set[PeerNode]
    __connectedNodes: set[PeerNode]
    __raftNextIndex: dict[PeerNode, int]
    __raftMatchIndex: dict[PeerNode, int]
    __commandsWaitingReply: dict[int, Callback]
    __transport: Outbox

    _votes: frozenset[PeerNode] = frozenset()  # who voted for this node in the current term
    _pre_votes: frozenset[int] = frozenset()  # who would, since the last question
    _may_campaign = False  # a majority would: the next tick stands for election
    _leader_heard_at = NEVER

    def _may_stand(self) -> bool:
        """Whether this node is a voter that may vote."""
        return self.membership.voter(self._me) is not None and self._may_vote(b"")

    def _may_vote(self, named: bytes) -> bool:
        """Whether rule 27 lets this node vote for one whose configuration names this journal (empty: a founder's).

        A journal that is put back after the voter was admitted with another one votes no more: the candidate's word
        stands above what this log, which then is an old one, says.
        """
        ours = self.__raftLog.identity.journal_id
        if named:
            return named == ours
        voter = self.membership.voter(self._me)
        known = voter.journal_id if voter is not None else b""
        return known == ours or (self.__raftLog.may_vote and not known)

    # --- terms -----------------------------------------------------------------------------------------------------

    def __setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:
        """Fault: votes of an earlier term stay counted. Test: double_vote.

        A hand-over is of its term, too: one that stayed would let this node stand later without pre-vote, and heed no
        heartbeat until then.
        """
        if term != self.__raftCurrentTerm:
            self.__transferInProgress = False
            self._votes = frozenset()
            self._pre_votes = frozenset()
            self._may_campaign = False
            self._new_term()
        self.__raftCurrentTerm = term
        self.__votedForNodeId = votedForNodeId
        self.__raftLog.setCurrentTerm(term, votedForNodeId)

    def _new_term(self) -> None:
        """What else is per term is forgotten."""

    def _adopt_term(self, term: int) -> bool:
        """Follow into a higher term, without knowing its leader. False if the term is not higher."""
        if term <= self.__raftCurrentTerm:
            return False
        self.__setCurrentTerm(term, None)
        self.__raftState = FOLLOWER
        self._lose_leader()
        return True

    def _lose_leader(self) -> None:
        self.__raftLeader = None
        self._leader_heard_at = NEVER
        self.__onLeaderChanged()

    def __onLeaderChanged(self) -> None:
        """Answer those who wait for a former leader's word. The library lets a callback's error stop it half-way."""
        waiting, self.__commandsWaitingReply = self.__commandsWaitingReply, {}
        for request_id in sorted(waiting):
            waiting[request_id](None, FAIL_REASON.LEADER_CHANGED)

    # --- standing for election -------------------------------------------------------------------------------------
    # Fault: a node that comes back deposes a healthy leader by its higher term. Tests: no_pre_vote, returning_node.

    def _onTick(self, timeToWait: float = 0.0) -> None:
        self._consider_election()
        if self.__raftState == LEADER:
            # The library counts the leader's own log as durable when it counts acknowledgements.
            self.__raftLog.sync()
        super()._onTick(timeToWait)

    def _consider_election(self) -> None:
        """Ask for pre-votes when the leader was not heard for an election timeout; the library's tick does the rest."""
        now = clock()
        if self.__raftState == LEADER or self.__raftElectionDeadline >= now:
            self._may_campaign = False
            return
        if not self._may_stand():
            self._postpone_election(now)
            self._lose_leader()
        elif not (self._may_campaign or self.__transferInProgress or not self.__otherNodes):
            self._postpone_election(now)
            self._lose_leader()
            self._ask_for_pre_votes()
        self._may_campaign = False

    def _postpone_election(self, now: float) -> None:
        self.__raftElectionDeadline = now + self.__generateRaftTimeout()
        self.__transferInProgress = False

    def _ask_for_pre_votes(self) -> None:
        self._pre_votes = frozenset({self._me})
        last = self.__raftLog[-1]
        for node in sorted(self.__otherNodes):
            question = {"type": "request_pre_vote", "term": self.__raftCurrentTerm}
            self.__transport.send(node, question | {"last_log_index": last.index, "last_log_term": last.term})

    def _on_request_pre_vote(self, node: PeerNode, message: Message) -> None:
        last = self.__raftLog[-1]
        leader_lives = self.__raftState == LEADER or (
            clock() - self._leader_heard_at < self._settings.election_timeout_s[0]
        )
        granted = (
            self._may_vote(message["journal_id"])
            and not leader_lives
            and message["term"] >= self.__raftCurrentTerm
            and (message["last_log_term"], message["last_log_index"]) >= (last.term, last.index)
        )
        answer = {"type": "pre_vote_answer", "term": self.__raftCurrentTerm}
        self.__transport.send(node, answer | {"granted": granted, "asked_term": message["term"]})

    def _on_pre_vote_answer(self, node: PeerNode, message: Message) -> None:
        if self._adopt_term(message["term"]) or self.__raftState == LEADER or not self._pre_votes:
            return
        if message["granted"] and message["asked_term"] == self.__raftCurrentTerm and node in self.__otherNodes:
            self._pre_votes |= {node}
            if 2 * len(self._pre_votes) > len(self.__otherNodes) + 1:
                self._pre_votes = frozenset()
                self._may_campaign = True
                self.__raftElectionDeadline = NEVER

    # --- votes -----------------------------------------------------------------------------------------------------

    def _on_request_vote(self, node: PeerNode, message: Message) -> None:
        """Fault: none in the library's part; but who may not vote must not (rule 27). Test: joined_voter_votes."""
        if self._may_vote(message["journal_id"]):
            term = self.__raftCurrentTerm
            self._handle_by_library(node, message)
            if self.__raftCurrentTerm != term:
                self._lose_leader()

    def _on_response_vote(self, node: PeerNode, message: Message) -> None:
        """Fault: votes are counted, not voters, and anybody's. Test: double_vote, foreign_vote."""
        if message["term"] == self.__raftCurrentTerm and node in self.__otherNodes and node not in self._votes:
            self._votes |= {node}
            self._handle_by_library(node, message)

    def _on_timeout_now(self, node: PeerNode, message: Message) -> None:
        """The leader hands over: stand at once, without pre-vote."""
        if self._may_stand():
            self._handle_by_library(node, message)

    # --- connections -----------------------------------------------------------------------------------------------

    def __onNodeConnected(self, node: PeerNode) -> None:
        """Whoever is no voter of the configuration in force is an observer: it gets the log and counts for nothing."""
        self.__connectedNodes.add(node)
        if node not in self.__otherNodes:
            self.__readonlyNodes.add(node)
            self.__raftNextIndex[node] = self.__raftLog[-1].index + 1
            self.__raftMatchIndex[node] = 0
        if self.__raftMatchIndex.get(node):
            self.__raftNextIndex[node] = self.__raftMatchIndex[node] + 1
        self._forget_progress(node)

    def __onNodeDisconnected(self, node: PeerNode) -> None:
        """Fault: commands forwarded to a leader that is gone wait for ever. Test: forward_disconnect."""
        self.__connectedNodes.discard(node)
        self._forget_progress(node)
        if node in self.__readonlyNodes:
            self.__readonlyNodes.discard(node)
            self.__raftNextIndex.pop(node, None)
            self.__raftMatchIndex.pop(node, None)
        if node == self.__raftLeader:
            self._lose_leader()
            # Its process is probably dead: no need to sit out the rest of the timeout. Pre-vote guards against error.
            low, high = self._settings.election_timeout_s
            hurried = clock() + self._random.uniform(0, high - low)
            self.__raftElectionDeadline = min(self.__raftElectionDeadline, hurried)

    def _forget_progress(self, node: PeerNode) -> None:
        """What was under way to this node is lost."""
