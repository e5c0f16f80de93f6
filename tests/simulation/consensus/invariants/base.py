"""How invariants are told what happens, and what all of them know of the world's past."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.raft.core import MEMBERSHIP
from penstock.raft.membership import Change, Membership

if TYPE_CHECKING:
    from tests.simulation.consensus.clients import Request
    from tests.simulation.consensus.node import Node
    from tests.simulation.consensus.world import World

Message = dict[str, Any]
_HOOKS = (
    "on_start",
    "on_commit",
    "on_lead",
    "on_configure",
    "on_apply",
    "on_restore",
    "on_acknowledge",
    "on_refuse",
    "at_end",
)


class Violation(Exception):  # noqa: N818  what a checker finds, not what code does wrong
    """An invariant does not hold. Its text begins with the invariant's name."""


class History:
    """What has happened for good, as first seen anywhere."""

    def __init__(self, founders: Membership) -> None:
        self.committed: dict[int, tuple[int, bytes]] = {}  # index -> term and command
        self.committed_in: dict[int, int] = {}  # index -> term of the node that was first seen to have committed it
        self.highest = 1  # commit index
        self.memberships = [(1, founders)]  # committed configurations, by index
        self.states: dict[int, tuple[int, bytes, bool]] = {}  # index -> digest, result, whether it had an effect
        self.applied: dict[bytes, int] = {}  # command -> its one index
        self.named: set[bytes] = set()  # journals that some change was to add

    def commit(self, index: int, term: int, command: bytes, seen_in: int) -> None:
        """Note an entry as committed, unless one is noted there already."""
        if index in self.committed:
            return
        self.committed[index] = (term, command)
        self.committed_in[index] = seen_in
        if index > self.highest:
            self.highest = index
            if command[:1] == MEMBERSHIP:
                self.memberships.append((index, self.memberships[-1][1].after(Change.decode(command[1:]))))

    def membership_at(self, index: int) -> Membership:
        """The configuration as of a committed entry."""
        return next(membership for at, membership in reversed(self.memberships) if at <= index)


class Invariant:
    """One property. A subclass overrides what it wants to be told."""

    sends: Iterable[str] = ()  # types of messages that on_send is told
    receives: Iterable[str] = ()

    hooks: Sequence[str] = ()  # those of _HOOKS that it overrides

    def __init_subclass__(cls) -> None:
        """Find out what the property wants to be told."""
        cls.hooks = [name for name in _HOOKS if getattr(cls, name) is not getattr(Invariant, name)]

    def __init__(self, world: "World") -> None:
        self.world = world
        self.history = world.history

    def fail(self, what: str) -> NoReturn:
        """Report the breach."""
        raise Violation(f"{type(self).__name__}: {what}")

    def on_start(self, node: "Node") -> None:
        """A process has started on what is on its disk."""

    def on_commit(self, node: "Node", before: int, now: int) -> None:
        """A node's commit index has moved."""

    def on_lead(self, node: "Node", term: int) -> None:
        """A node leads, for the first time in this term."""

    def on_configure(self, node: "Node") -> None:
        """A node's stack of configurations has changed."""

    def on_apply(self, node: "Node", index: int, command: bytes, state: tuple[int, bytes, bool]) -> None:
        """A node has applied a command; its state's digest, the command's result, and whether it had an effect."""

    def on_restore(self, node: "Node", index: int, digest: int) -> None:
        """A node has its state from a snapshot."""

    def on_send(self, node: "Node", receiver: int, message: Message) -> None:
        """A message leaves."""

    def on_receive(self, node: "Node", sender: int, message: Message) -> None:
        """A message is delivered."""

    def on_acknowledge(self, request: "Request", result: bytes) -> None:
        """A client hears that its command is applied."""

    def on_refuse(self, request: "Request") -> None:
        """A client hears that its command is not applied and will never be."""

    def at_end(self) -> None:
        """After healing, when all has converged."""


Check = Callable[..., None]


class Checks:
    """All invariants of one world, and who of them is told what."""

    def __init__(self, world: "World", kinds: Iterable[type[Invariant]]) -> None:
        self._history = world.history
        self._told: dict[str, list[Check]] = {name: [] for name in _HOOKS}
        self.sent: defaultdict[str, list[Check]] = defaultdict(list)
        self.received: defaultdict[str, list[Check]] = defaultdict(list)
        for kind in kinds:
            invariant = kind(world)
            for name in kind.hooks:
                self._told[name].append(getattr(invariant, name))
            for message in kind.sends:
                self.sent[message].append(invariant.on_send)
            for message in kind.receives:
                self.received[message].append(invariant.on_receive)
        self._apply = self._told["on_apply"]

    def _tell(self, hook: str, *facts: object) -> None:
        for check in self._told[hook]:
            check(*facts)

    def started(self, node: "Node") -> None:
        """A process has started."""
        self._tell("on_start", node)

    def committed(self, node: "Node", before: int, now: int) -> None:
        """A commit index has moved; what is new goes into the history first."""
        log, history, term = node.journal, self._history, node.machine.raftCurrentTerm
        first = log[0].index
        for index in range(max(before, history.highest, first) + 1, now + 1):
            entry = log[index - first]
            history.commit(index, entry.term, entry.command, term)
        self._tell("on_commit", node, before, now)

    def leads(self, node: "Node", term: int) -> None:
        """A node leads."""
        self._tell("on_lead", node, term)

    def configured(self, node: "Node") -> None:
        """Configurations have come or gone."""
        self._tell("on_configure", node)

    def applied(self, node: "Node", index: int, command: bytes, state: tuple[int, bytes, bool]) -> None:
        """A command was applied."""
        for check in self._apply:
            check(node, index, command, state)
        self._history.states.setdefault(index, state)
        self._history.applied.setdefault(command, index)

    def restored(self, node: "Node", index: int, digest: int) -> None:
        """A snapshot was."""
        self._tell("on_restore", node, index, digest)

    def acknowledged(self, request: "Request", result: bytes) -> None:
        """A client has its answer."""
        self._tell("on_acknowledge", request, result)

    def refused(self, request: "Request") -> None:
        """A client has its answer."""
        self._tell("on_refuse", request)

    def at_end(self) -> None:
        """The world has converged."""
        self._tell("at_end")
