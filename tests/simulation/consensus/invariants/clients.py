"""What clients may rely on."""

from typing import TYPE_CHECKING

from tests.simulation.consensus.invariants.base import Invariant

if TYPE_CHECKING:
    from tests.simulation.consensus.clients import Request
    from tests.simulation.consensus.node import Node
    from tests.simulation.consensus.world import World


ROUND_S = 0.02  # within which a node takes in what has happened, unless it is slow
JUST_NOW_S = 0.9  # within which an answer may be under way


class AcknowledgedIsApplied(Invariant):
    """What was acknowledged is applied at the index that was named, with that result, and stays so."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._acknowledged: list[Request] = []

    def on_acknowledge(self, request: "Request", result: bytes) -> None:
        index = self.history.applied.get(request.command)
        if index is None or index != request.index:
            self.fail(f"{request.command!r} acknowledged at {request.index}, applied at {index}")
        if self.history.states[index][1] != result:
            self.fail(f"{request.command!r} has another result than was told")
        self._acknowledged.append(request)

    def at_end(self) -> None:
        for request in self._acknowledged:
            entry = self.history.committed.get(request.index or 0)
            if entry is None or entry[1][1:] != request.command:
                self.fail(f"{request.command!r} was acknowledged at {request.index} and is lost")


class AppliedOnce(Invariant):
    """A command has one place; one that is tried again has one effect."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._effects: dict[bytes, int] = {}

    def on_apply(self, node: "Node", index: int, command: bytes, state: tuple[int, bytes, bool]) -> None:
        known = self.history.applied.get(command, index)
        if known != index:
            self.fail(f"{command!r} is applied at {known} and at {index}")
        if state[2] and command[:1] == b"r":
            number = command[: command.index(b".")]
            if self._effects.setdefault(number, index) != index:
                self.fail(f"{number!r} takes effect at {self._effects[number]} and at {index}")


class RefusedIsNotApplied(Invariant):
    """What was refused for certain is never applied."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._refused: set[bytes] = set()

    def on_refuse(self, request: "Request") -> None:
        self._refused.add(request.command)
        if request.command in self.history.applied:
            self.fail(f"{request.command!r} was refused, but is applied")

    def on_apply(self, node: "Node", index: int, command: bytes, state: tuple[int, bytes, bool]) -> None:
        if command in self._refused:
            self.fail(f"{command!r} was refused, but node {node.id} applies it at {index}")


class OrderOfSubmission(Invariant):
    """What one process submitted and had acknowledged is in the log in the order of submission."""

    def at_end(self) -> None:
        last: dict[tuple[int, int], Request] = {}
        for request in self.world.clients.requests:  # in the order of submission
            if request.index is None:
                continue
            key = (request.node.id, request.generation)
            before = last.get(key)
            if before is not None and (before.index or 0) >= request.index:
                self.fail(f"{request.command!r} is at {request.index}, {before.command!r} before it at {before.index}")
            last[key] = request


class AnsweredOnce(Invariant):
    """A waiter is told once, and nobody is forgotten while its process lives.

    Left to the caller's deadline are: an entry of a former leader that no other entry has taken the place of, and a
    forwarded command whose answer was on a stream that broke or hangs, or found the queue full.
    """

    def on_acknowledge(self, request: "Request", result: bytes) -> None:
        self._once(request)

    def on_refuse(self, request: "Request") -> None:
        self._once(request)

    def _once(self, request: "Request") -> None:
        if request.answers > 1:
            self.fail(f"{request.command!r} is answered {request.answers} times")

    def at_end(self) -> None:
        for node in self.world.nodes.values():
            applied = node.machine.raftLastApplied
            for index, waiting in node.machine._SyncObj__commandsWaitingCommit.items():
                if waiting and index <= applied:
                    self.fail(f"who waits for {index} at node {node.id} is forgotten, {applied} is applied")
        for request in self.world.clients.requests:
            node = request.node
            if not request.answers and request.generation == node.generation and not self._is_excused(request):
                self.fail(f"{request.command!r} of node {node.id} is never answered")

    def _is_excused(self, request: "Request") -> bool:
        node = request.node
        if node.machine._SyncObj__commandsWaitingCommit or request.at > self.world.now - JUST_NOW_S:
            return True
        network = self.world.network
        if any(stream.hung and node.id in pair for pair, stream in network.streams.items()):
            return True
        if any(node.id in pair and at > self.world.now - ROUND_S for pair, at in network.lost_at.items()):
            return True  # it hears of the break in its next round
        return any(receiver == node.id and at >= request.at for (_, receiver), at in network.lost_at.items())
