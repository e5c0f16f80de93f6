"""Those who use a world: clients that submit commands, and the operator that changes who votes.

The admission of a voter with a new journal takes the product's own steps (`node.controller.admission`).
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.node.controller.admission import NoteVoter, RemoveVoter, next_step
from penstock.raft.core import COMMAND, MEMBERSHIP
from penstock.raft.image import EMPTY_IMAGE, Address, NodeInfo
from penstock.raft.machine import DEFINITE, Submission, Transfer
from penstock.raft.membership import Change, Voter
from tests.simulation.consensus.node import Node

if TYPE_CHECKING:
    from tests.simulation.consensus.world import World

TIMEOUT_S = 3.0
AGAIN_S = 0.15
MOST_ATTEMPTS = 12
OPERATOR_S = 0.4


class Request:
    """One attempt to have a command applied."""

    __slots__ = ("again", "answers", "at", "attempt", "command", "generation", "index", "node", "number", "submission")

    def __init__(self, node: Node, number: int, attempt: int, *, again: bool, at: float) -> None:
        self.node = node
        self.generation = node.generation
        self.number = number
        self.attempt = attempt
        self.again = again  # to be tried again unless it is acknowledged
        self.at = at
        self.command = b"%s%d.%d" % (b"r" if again else b"", number, attempt)
        self.answers = 0
        self.index: int | None = None  # once acknowledged
        self.submission: Submission


class Clients:
    """They submit, wait for a while, and some try again with another node."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.requests: list[Request] = []
        self._numbers = 0

    def submit(self, node: Node, *, again: bool = False) -> Request | None:
        """Submit a command, if the node is up."""
        if not node.up:
            return None
        self._numbers += 1
        return self._attempt(node, self._numbers, 1, again=again)

    def all_answered(self) -> bool:
        """Whether nobody who asked of late waits for an answer."""
        for request in reversed(self.requests):
            if request.at < self._world.now - TIMEOUT_S:
                break
            if not request.answers and request.generation == request.node.generation:
                return False
        return True

    def _attempt(self, node: Node, number: int, attempt: int, *, again: bool) -> Request:
        world = self._world
        request = Request(node, number, attempt, again=again, at=world.now)
        request.submission = Submission(COMMAND + request.command, self._hears(request))
        self.requests.append(request)
        node.take(request.submission)
        world.at(world.now + TIMEOUT_S, self._time_out, request)
        return request

    def _hears(self, request: Request) -> Callable[[tuple[int, bytes] | None, int], None]:
        def answer(result: tuple[int, bytes] | None, reason: int) -> None:
            request.answers += 1
            if result is not None:
                request.index = result[0]
                self._world.checks.acknowledged(request, result[1])
                return
            if reason in DEFINITE:
                self._world.checks.refused(request)
            self._try_again(request)

        return answer

    def _time_out(self, request: Request) -> None:
        if request.answers:
            return
        if request.submission.claim():
            request.answers += 1
            self._world.checks.refused(request)
        self._try_again(request)

    def _try_again(self, request: Request) -> None:
        if request.again and request.attempt < MOST_ATTEMPTS:
            request.again = False
            world = self._world
            world.at(world.now + AGAIN_S * request.attempt, self._again, request.number, request.attempt)

    def _again(self, number: int, attempt: int) -> None:
        nodes = list(self._world.nodes.values())
        up = [node for node in nodes if node.up]
        if up:
            self._attempt(up[(number + attempt) % len(up)], number, attempt + 1, again=True)


class Operator:
    """Changes the configuration, and sees to it that a voter with a new journal is admitted."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._waits_until = 0.0  # for the answer to the last step

    def change(self, node: Node) -> None:
        """Remove the node if it votes, else add it."""
        world = self._world
        leader = world.leader()
        if leader is None or not node.up:
            return
        present = leader.membership.voter(node.id) is not None
        if present and len(leader.membership.voters) <= 2:
            return
        journal_id = b"" if present else node.disk.identity.journal_id
        self._submit(leader, Change(not present, Voter(node.id, f"n{node.id}", journal_id)))

    def admit(self) -> None:
        """Take the next step of admission; come again until it is done."""
        world = self._world
        if world.outstanding is not None:
            self._take_step()
            world.at(world.now + OPERATOR_S, self.admit)

    def _take_step(self) -> None:
        world = self._world
        leader, outstanding = world.leader(), world.outstanding
        if leader is None or outstanding is None or world.now < self._waits_until:
            return
        nodes = {node.id: self._info(node, may_vote=node is not outstanding) for node in world.nodes.values()}
        voters = {voter.node_id: voter.journal_id for voter in leader.membership.voters}
        step = next_step(dataclasses.replace(EMPTY_IMAGE, nodes=nodes), voters)
        if step is None:
            return
        if isinstance(step, NoteVoter):  # the answer to the addition was lost; the note commits it, if it is not yet
            if leader.machine.raftCommitIndex >= leader.machine._configurations[-1][0]:
                world.trace("admitted", outstanding.id)
                world.outstanding = None
            return
        if step == RemoveVoter(leader.id):  # which it refuses
            leader.take(Transfer(None, lambda *_: None))
            return
        self._waits_until = world.now + TIMEOUT_S
        if isinstance(step, RemoveVoter):
            self._submit(leader, Change(adding=False, voter=Voter(step.node_id, "")), self._on_step)
        else:
            voter = Voter(step.node_id, f"n{step.node_id}", step.journal_id)
            self._submit(leader, Change(adding=True, voter=voter), self._on_step)

    def _on_step(self, change: Change, result: tuple[int, bytes] | None) -> None:
        """The step was taken, or not; once the addition is committed the admission is noted, and over."""
        world = self._world
        self._waits_until = 0.0
        if result is None:
            return
        if change.adding:
            node = world.outstanding
            if node is not None and node.disk.identity.journal_id == change.voter.journal_id:
                world.trace("admitted", node.id)
                world.outstanding = None
        else:
            world.at(world.now + 0.001, self._take_step)

    @staticmethod
    def _info(node: Node, *, may_vote: bool) -> NodeInfo:
        """The node as the metadata would have it: registered, and fenced while it is down."""
        address = Address(f"n{node.id}", 1)
        return NodeInfo(
            node_id=node.id,
            node_epoch=node.generation,
            store_id=b"",
            start_id=b"",
            client_address=address,
            peer_address=address,
            fenced=not node.up,
            voter=True,
            journal_id=node.disk.identity.journal_id,
            may_vote=may_vote,
        )

    def _submit(self, leader: Node, change: Change, then: Callable[..., None] | None = None) -> None:
        world = self._world
        world.trace("change", leader.id, change.adding, change.voter.node_id)
        if change.adding:
            world.history.named.add(change.voter.journal_id)

        def answer(result: tuple[int, bytes] | None, _reason: int) -> None:
            if then is not None:
                then(change, result)

        leader.take(Submission(MEMBERSHIP + change.encode(), answer))
