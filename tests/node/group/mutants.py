"""The table of deliberate bugs of membership: each rule taken away, and which invariant misses it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group import deciding, membership, targets
from penstock.node.group.assignor import Shares, assign
from penstock.node.group.committing import CommitCheck
from penstock.node.group.deciding import Decision, Facts
from penstock.node.group.deciding import decide as real_decide
from penstock.node.group.membership import GroupCore
from penstock.node.group.session import Session
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft import apply_groups
from penstock.raft.draft import Draft
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo
from tests.node.group.client import Client
from tests.node.group.schedule import run
from tests.node.group.world import GroupWorld, Violation

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutant:
    """What to put in the place of what, and which invariants miss it."""

    name: str
    rule: str
    shows: tuple[str, ...]
    patches: tuple[Patch, ...] = ()
    world: type[GroupWorld] = GroupWorld
    first_seed: int = 0
    """From where on one that finds it is near."""

    @contextmanager
    def apply(self) -> Iterator[None]:
        """While this lasts the rule is broken."""
        with ExitStack() as stack:
            for owner, name, substitute in self.patches:
                stack.enter_context(mock.patch.object(owner, name, substitute))
            yield


def caught(mutant: Mutant, seeds: Iterable[int]) -> int | None:
    """The first seed whose run violates what the mutant should; None: none of these."""
    with mutant.apply():
        for seed in seeds:
            try:
                run(mutant.world(), seed)
            except Violation as violation:
                if str(violation).startswith(mutant.shows):
                    return seed
    return None


# ---- the bugs


def _grant_what_others_own(decision: Decision) -> None:
    for member_id, member in decision.members.items():
        missing = {p for p in member.target if p not in member.owned}
        granted = dict(member.owned) | dict.fromkeys(missing, decision.generation)
        decision.members[member_id] = replace(member, owned=granted)


def _take_at_once(decision: Decision) -> None:
    for member_id, member in decision.members.items():
        kept = {p: granted for p, granted in member.owned.items() if p in member.target}
        decision.members[member_id] = replace(member, owned=kept)


def _any_coordinator(draft: Draft, change: pb.GroupChange) -> None:
    del draft, change


def _whatever_is_in_flight(facts: Facts) -> Decision:
    return real_decide(replace(facts, committing=()))


class SessionsGoOn(GroupCore):
    """A new coordinator takes the sessions for as old as they may be."""

    def __init__(self, group: GroupInfo, *args: Any) -> None:
        super().__init__(group, *args)
        for member_id, session in self.sessions.items():
            session.heard_ms -= group.members[member_id].session_timeout_ms


class AcknowledgesTheCondemned(GroupCore):
    """A condemned member still gets acknowledgements."""

    def on_heartbeat(self, member_id: str, polls: int, now_ms: int) -> None:
        session = self.sessions.get(member_id)
        if session is None:
            super().on_heartbeat(member_id, polls, now_ms)


class CommitsOfTheCondemned(GroupCore):
    """A condemned member still commits."""

    def check_commit(
        self, member_id: str, generation: int, partitions: Iterable[GroupPartition]
    ) -> list[PenstockError | None]:
        if member_id in self.sessions:
            check = CommitCheck(self.group, member_id, generation)
            return [check.of_member(p, self.sessions[member_id].released) for p in partitions]
        return super().check_commit(member_id, generation, partitions)


def _free_at_once(self: Session, member: MemberInfo, cause: str, reason: Reason = Reason.UNKNOWN_MEMBER) -> None:
    del member
    self.leave(cause, 0)
    assert self.condemned is not None
    self.condemned = replace(self.condemned, reason=reason)


_of_member = CommitCheck.of_member


def _released_or_not(
    self: CommitCheck, partition: GroupPartition, released: Iterable[GroupPartition]
) -> PenstockError | None:
    del released
    return _of_member(self, partition, ())


def _of_nobody(self: CommitCheck, *, is_joined: bool, is_deleting: bool) -> None:
    del self, is_joined, is_deleting


def _not_sticky(
    assignor: int,
    subscriptions: Mapping[str, frozenset[bytes]],
    partitions: Mapping[bytes, int],
    previous: Mapping[str, frozenset[GroupPartition]],
) -> Shares:
    del previous
    return assign(assignor, subscriptions, partitions, {})


def _blind_to_topics(*args: object) -> list[str]:
    del args
    return []


class Unfenced(Client):
    """A member that reads on until it is told otherwise."""

    def in_session(self, now_ms: int) -> bool:
        return True


def _with(core: type[GroupCore]) -> type[GroupWorld]:
    return type("MutantWorld", (GroupWorld,), {"core_type": core})


def _of(client: type[Client]) -> type[GroupWorld]:
    return type("MutantWorld", (GroupWorld,), {"client_type": client})


MUTANTS = (
    Mutant("21 grants what another owns", "21", ("I2",), ((deciding, "_grant", _grant_what_others_own),)),
    Mutant(
        "21 takes before it is released", "21", ("I1", "I4"), ((deciding, "_give_up", _take_at_once),), first_seed=11
    ),
    Mutant("21 condemned, and free at once", "21", ("I1",), ((Session, "condemn", _free_at_once),), first_seed=50),
    Mutant("21 acknowledges the condemned", "21", ("I1",), world=_with(AcknowledgesTheCondemned), first_seed=60),
    Mutant(
        "31 any coordinator",
        "31",
        ("I1", "I6"),
        ((apply_groups, "_check_coordinator", _any_coordinator),),
        first_seed=203,
    ),
    Mutant("31 sessions go on", "31", ("I1",), world=_with(SessionsGoOn), first_seed=10),
    Mutant(
        "31 moves with commits in flight",
        "31",
        ("I6",),
        ((membership, "decide", _whatever_is_in_flight),),
        first_seed=13,
    ),
    Mutant("20 commits of the condemned", "20", ("I6",), world=_with(CommitsOfTheCondemned), first_seed=13),
    Mutant(
        "20 commits of what is released", "20", ("I6",), ((CommitCheck, "of_member", _released_or_not),), first_seed=63
    ),
    Mutant("31 by nobody beside members", "31", ("I6",), ((CommitCheck, "of_nobody", _of_nobody),), first_seed=5),
    Mutant("not sticky", "-", ("I5",), ((targets, "assign", _not_sticky),)),
    Mutant("blind to topics", "-", ("I7",), ((deciding, "topic_causes", _blind_to_topics),), first_seed=6),
    Mutant("client: no fence", "-", ("I1",), world=_of(Unfenced)),
)
