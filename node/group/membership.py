"""One consumer group on its coordinator, in one leader epoch. A pure core.

Owns what the coordinator knows of the group beside the metadata, and decides each change of it. Invariants: a decision
is made on the group that the metadata shows, one at a time; what a member is told is what the metadata shows, never
what is merely proposed; nothing is taken from a member that may still believe to have it (rule 21), nothing changes its
owner while a commit for it is in flight (rule 31). Times are monotonic milliseconds, but `wall_ms`.
"""

from collections.abc import Iterable
from typing import NamedTuple

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.causes import Removed, name_of
from penstock.node.group.committing import CommitCheck
from penstock.node.group.deciding import Facts, decide
from penstock.node.group.events import Assign, Assigned, End, Joined, Outputs
from penstock.node.group.in_flight import InFlight
from penstock.node.group.joining import GroupLimits, Wish, invalid
from penstock.node.group.proposal import Proposal
from penstock.node.group.refusals import full, in_use, replaced, stranger
from penstock.node.group.session import NO_STREAM, Session
from penstock.node.group.subscription import Catalog, missing_topic
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo

REASON_CHARACTERS = 100
"""Of what a member says when it leaves."""


class Coordinator(NamedTuple):
    """Who decides, in which leadership (rule 31)."""

    node_id: int
    leader_epoch: int


class _Join(NamedTuple):
    wish: Wish
    stream: int


class GroupCore:
    """Events in, outputs out; `decide` gives the next change whenever there is one to propose."""

    def __init__(
        self,
        group: GroupInfo,
        coordinator: Coordinator,
        limits: GroupLimits,
        catalog: Catalog,
        now_ms: int,
    ) -> None:
        """`group`: as the metadata has it when this coordinator takes over; group_epoch 0: there is none."""
        self.group = group
        self.is_dirty = True
        """`decide` may have something to say."""
        self.sessions: dict[str, Session] = {}
        self._coordinator = coordinator
        self._limits = limits
        self._catalog = catalog
        self._names = dict(catalog.names)
        self._look_at_topics = True
        self._joins: dict[str, _Join] = {}
        self._left: dict[str, str] = {}
        """Who left when the change by which it joins was under way already, with what it did."""
        self._updates: dict[str, Wish] = {}
        self._removed = Removed()
        self._committing = InFlight()
        self._proposal = Proposal()
        self._is_wanted = False
        self._is_deleting = False
        self.failure: PenstockError | None = None
        """Why the group could not be made or deleted."""
        heard_ms = now_ms + limits.takeover_grace_ms  # rule 31: all sessions begin anew
        for member in group.members.values():
            self._follow(member, Session(heard_ms, heard_ms), now_ms)

    # ---- questions

    @property
    def group_id(self) -> str:
        """Its id."""
        return self.group.group_id

    @property
    def exists(self) -> bool:
        """Whether the metadata has it."""
        return self.group.group_epoch > 0

    @property
    def is_committing(self) -> bool:
        """A commit is in flight."""
        return bool(self._committing)

    @property
    def is_idle(self) -> bool:
        """Nothing is known of it that would be lost with this object."""
        return not (self.exists or self._joins or self._is_wanted or self._committing or self._proposal.is_under_way)

    def due_ms(self, now_ms: int) -> int | None:
        """When `tick` or `decide` has something to do next, if nothing comes before."""
        times = [self._proposal.hold_ms] if self.is_dirty else []
        times += [session.due_ms(self.group.members[member_id]) for member_id, session in self.sessions.items()]
        return min((due_ms for due_ms in times if due_ms > now_ms), default=None)

    def assignment(self, member_id: str, now_ms: int) -> Assigned | None:
        """Return what a member has now; None: it is none, or told no more."""
        member, session = self.group.members.get(member_id), self.sessions.get(member_id)
        if member is None or session is None or session.condemned is not None:
            return None
        has = [(p, granted) for p, granted in member.owned.items() if p in member.target and p not in session.released]
        left_ms = member.rebalance_timeout_ms
        if session.revoked:
            left_ms = max(0, min(session.revoked.values()) + left_ms - now_ms)
        return Assigned(self.group.generation, sorted(has), sorted(session.revoked), left_ms)

    def check_commit(
        self, member_id: str, generation: int, partitions: Iterable[GroupPartition]
    ) -> list[PenstockError | None]:
        """Return for each partition why a commit is refused, or None (rule 20)."""
        check = CommitCheck(self.group, member_id, generation)
        if not member_id:
            refusal = check.of_nobody(is_joined=bool(self._joins), is_deleting=self._is_deleting)
            return [refusal for _ in partitions]
        session = self.sessions.get(member_id)
        if session is None or session.condemned is not None or session.returning:
            return [self._stranger(member_id) for _ in partitions]
        return [check.of_member(partition, session.released) for partition in partitions]

    # ---- members

    def on_join(self, wish: Wish, stream: int, now_ms: int) -> Outputs:
        """A stream begins. Raises the error that ends it."""
        member = self.group.members.get(wish.member.member_id)
        if member is not None:
            return self._on_rejoin(member, wish, stream, now_ms)
        member_id = wish.member.member_id
        if wish.generation > 0:
            raise self._stranger(member_id)
        self._check_topics(wish, None)
        former = self._joins.get(member_id)
        if former is None and not self._has_room(wish.member):
            raise full(self.group_id, self._limits.max_members)
        self._claim_instance(wish.member)
        self._joins[member_id] = _Join(wish, stream)
        self._left.pop(member_id, None)
        self.is_dirty = True
        return [] if former is None else [End(former.stream, replaced(wish.member))]

    def on_heartbeat(self, member_id: str, polls: int, now_ms: int) -> None:
        """A member lives. Raises UNKNOWN_MEMBER, INSTANCE_FENCED: it must not be acknowledged."""
        session = self.sessions.get(member_id)
        if session is None or session.condemned is not None or session.returning:
            raise self._stranger(member_id)
        session.heartbeat(polls, now_ms)

    def on_subscribe(self, wish: Wish) -> None:
        """A member wants another subscription. Raises UNKNOWN_TOPIC."""
        member_id = wish.member.member_id
        member, join = self.group.members.get(member_id), self._joins.get(member_id)
        self._check_topics(wish, member or (join.wish.member if join is not None else None))
        if member is not None:
            self._updates[member_id] = wish
        elif join is not None:
            self._joins[member_id] = join._replace(wish=wish)
        self.is_dirty = True

    def on_release(self, member_id: str, generation: int, partitions: Iterable[GroupPartition]) -> None:
        """A member has given up what it got before `generation`. Raises INVALID_ARGUMENT for one that is not there yet.

        What it got since then stays: the release is a repeat that comes late.
        """
        member, session = self.group.members.get(member_id), self.sessions.get(member_id)
        if member is None or session is None:
            return
        if generation > self.group.generation:
            raise invalid(f"generation {generation} is not there yet: the group's is {self.group.generation}")
        for partition in partitions:
            granted = member.owned.get(partition)
            if granted is not None and granted < generation:
                session.released[partition] = granted
                session.revoked.pop(partition, None)
                self.is_dirty = True

    def on_leave(self, member_id: str, reason: str, now_ms: int, *, returning: bool) -> Outputs:
        """A member goes; a static one that is `returning` keeps what it has until its session ends."""
        cause = f"left: {reason[:REASON_CHARACTERS]}" if reason else "left"
        join = self._joins.pop(member_id, None)
        if join is not None:
            if self._proposal.is_under_way and not returning:
                self._left[member_id] = cause
            return [End(join.stream)]
        member, session = self.group.members.get(member_id), self.sessions.get(member_id)
        if member is None or session is None or session.condemned is not None:
            return []
        self.is_dirty = True
        session.heartbeat(session.polls, now_ms)
        if returning and member.instance_id:
            session.returning = True
            session.revoked.clear()
            stream, session.stream = session.stream, NO_STREAM
            return [End(stream)]
        session.leave(cause, now_ms)
        return []  # the stream ends when the group has it no more

    def on_stream_gone(self, member_id: str, stream: int) -> None:
        """A stream broke or ended. That removes nobody who is a member: silence does."""
        join = self._joins.get(member_id)
        if join is not None and join.stream == stream:
            del self._joins[member_id]
        session = self.sessions.get(member_id)
        if session is not None and session.stream == stream:
            session.stream = NO_STREAM

    # ---- commits and group

    def commit_began(self, partitions: Iterable[GroupPartition]) -> None:
        """Commits were let through, and are in flight."""
        self._committing.began(partitions)

    def commit_ended(self, partitions: Iterable[GroupPartition]) -> None:
        """Their fate is known."""
        if self._committing.ended(partitions):
            self.is_dirty = True

    def want(self) -> None:
        """The group is to exist, with or without members."""
        self._is_wanted = self.is_dirty = True
        self.failure = None

    def delete(self, *, validate_only: bool) -> None:
        """Begin to delete the group. Raises UNKNOWN_GROUP, GROUP_NOT_EMPTY."""
        if not self.exists:
            raise PenstockError(Reason.UNKNOWN_GROUP, f"there is no group {self.group_id!r}")
        refusal = CommitCheck(self.group, "", 0).of_nobody(is_joined=bool(self._joins), is_deleting=False)
        if refusal is not None:
            raise refusal
        if not validate_only:
            self._is_deleting = self.is_dirty = True
            self.failure = None

    @property
    def is_deleting(self) -> bool:
        """It is to be deleted; that ends when it is, or when somebody joins before."""
        return self._is_deleting

    # ---- the world

    def tick(self, now_ms: int) -> Outputs:
        """Time passed: who cannot stay is condemned."""
        outputs: Outputs = []
        for member_id, session in self.sessions.items():
            member = self.group.members[member_id]
            cause = None if session.condemned is not None else session.fault(member, now_ms)
            if cause is not None:
                session.condemn(member, cause)
                if session.stream != NO_STREAM:
                    outputs.append(End(session.stream, self._stranger(member_id)))
            if session.condemned is not None and session.condemned.free_ms <= now_ms:
                self.is_dirty = True
        return outputs

    def on_pause(self, pause_ms: int) -> None:
        """This process stood still for so long: no member is to be blamed for that."""
        for session in self.sessions.values():
            session.prolong(pause_ms)

    def on_catalog(self, catalog: Catalog) -> None:
        """Topics were made, deleted or grown."""
        self._names = {**self._catalog.names, **catalog.names}
        self._catalog = catalog
        self._look_at_topics = self.is_dirty = True

    def on_group(self, group: GroupInfo | None, now_ms: int) -> Outputs:
        """The metadata shows another group; None: it is deleted."""
        former, self.group = self.group, group or GroupInfo(self.group_id, group_epoch=0)
        self._proposal.on_group()
        self.is_dirty = True
        if self.exists:
            self._is_wanted = False
        if not self.exists or self.group.members:
            self._is_deleting = False
        outputs: Outputs = []
        for member_id, member in former.members.items():
            if member_id not in self.group.members:
                outputs += self._on_removed(member)
        for member_id, member in self.group.members.items():
            if former.members.get(member_id) is not member or former.generation != self.group.generation:
                outputs += self._on_changed(member, now_ms)
        self._left.clear()
        return outputs

    # ---- proposing

    def decide(self, now_ms: int, wall_ms: int) -> pb.GroupChange | None:
        """Return the next change to propose; None: there is none, or one is under way."""
        if not self.is_dirty or not self._proposal.is_possible(now_ms):
            return None
        if self._joins or self.group.members:
            self._is_deleting = False
        change = self._deletion(wall_ms) if self._is_deleting else self._alteration(now_ms, wall_ms)
        if change is None:
            self.is_dirty = False
            return None
        self._proposal.begin(self._joins)
        return change

    def on_answer(self, result: pb.ChangeResult | None, now_ms: int) -> Outputs:
        """What became of the change under way; None: its fate is not known."""
        error = self._proposal.end(result, now_ms)
        if error is None:
            return []
        return self.on_refused(error)

    def on_refused(self, error: PenstockError) -> Outputs:
        """Who would have joined by the change under way cannot."""
        outputs: Outputs = []
        if self._is_wanted or self._is_deleting:
            self._is_wanted = self._is_deleting = False
            self.failure = error
        for member_id in self._proposal.take_joins():
            join = self._joins.pop(member_id, None)
            if join is not None:
                outputs.append(End(join.stream, error))
        return outputs

    # ---- inside

    def _alteration(self, now_ms: int, wall_ms: int) -> pb.GroupChange | None:
        facts = Facts(
            self.group,
            self.sessions,
            {member_id: join.wish for member_id, join in self._joins.items()},
            self._updates,
            self._committing,
            self._catalog,
            self._names,
            self._look_at_topics,
            now_ms,
            wall_ms,
        )
        decision = decide(facts)
        self._committing.wait_for(decision.held)
        change = decision.change(*self._coordinator)
        if not decision.causes:
            self._look_at_topics = False
        if change is None and self._is_wanted and not self.exists:
            return self._bare_change(wall_ms)
        return change

    def _deletion(self, wall_ms: int) -> pb.GroupChange | None:
        if self._committing:
            self._committing.wait_for_all()
            return None
        change = self._bare_change(wall_ms)
        change.delete = True
        return change

    def _bare_change(self, wall_ms: int) -> pb.GroupChange:
        return pb.GroupChange(
            group_id=self.group_id,
            coordinator=self._coordinator.node_id,
            leader_epoch=self._coordinator.leader_epoch,
            group_epoch=self.group.group_epoch,
            generation=self.group.generation,
            time_ms=wall_ms,
        )

    def _on_rejoin(self, member: MemberInfo, wish: Wish, stream: int, now_ms: int) -> Outputs:
        session = self.sessions[member.member_id]
        if session.condemned is not None:
            raise self._stranger(member.member_id)
        if wish.member.instance_id != member.instance_id:
            raise invalid(f"{name_of(member)} has joined by instance_id {member.instance_id!r}")
        self._check_topics(wish, member)
        outputs: Outputs = [] if session.stream == NO_STREAM else [End(session.stream, replaced(member))]
        session.stream, session.returning = stream, False
        session.polled_ms = max(session.polled_ms, now_ms)  # what it asked for meanwhile could not be told
        session.heartbeat(session.polls, now_ms)
        self._updates[member.member_id] = wish
        self._follow(member, session, now_ms)
        self.is_dirty = True
        return [*outputs, Joined(stream, member, self.group.generation), Assign(stream)]

    def _has_room(self, newcomer: MemberInfo) -> bool:
        """Whether somebody more may join. Who takes over an instance is nobody more."""
        if len(self.group.members) + len(self._joins) < self._limits.max_members:
            return True
        instances = {member.instance_id for member in self.group.members.values()}
        return bool(newcomer.instance_id) and newcomer.instance_id in instances

    def _claim_instance(self, newcomer: MemberInfo) -> None:
        """Fence who has the instance now. Raises INSTANCE_IN_USE where that one is connected."""
        instance_id = newcomer.instance_id
        if not instance_id:
            return
        for member_id, join in self._joins.items():
            if join.wish.member.instance_id == instance_id and member_id != newcomer.member_id:
                raise in_use(join.wish.member)
        for member_id, member in self.group.members.items():
            if member.instance_id != instance_id:
                continue
            session = self.sessions[member_id]
            if session.stream != NO_STREAM and session.condemned is None:
                raise in_use(member)
            cause = f"was replaced by another member of instance {instance_id[:REASON_CHARACTERS]}"
            session.condemn(member, cause, Reason.INSTANCE_FENCED)

    def _on_removed(self, member: MemberInfo) -> Outputs:
        self._updates.pop(member.member_id, None)
        session = self.sessions.pop(member.member_id)
        condemned = session.condemned
        if condemned is not None:
            self._removed.note(member.member_id, condemned)
        if session.stream == NO_STREAM:
            return []
        left = condemned is not None and condemned.by_itself
        return [End(session.stream, None if left else self._stranger(member.member_id))]

    def _on_changed(self, member: MemberInfo, now_ms: int) -> Outputs:
        session = self.sessions.get(member.member_id) or Session(now_ms, now_ms)
        self._follow(member, session, now_ms)
        outputs: Outputs = []
        join = self._joins.pop(member.member_id, None)
        if join is not None:
            session.stream = join.stream
            outputs.append(Joined(join.stream, member, self.group.generation))
            self._updates[member.member_id] = join.wish
        elif member.member_id in self._left:
            session.leave(self._left[member.member_id], now_ms)
        if session.stream != NO_STREAM and session.condemned is None:
            outputs.append(Assign(session.stream))
        return outputs

    def _follow(self, member: MemberInfo, session: Session, now_ms: int) -> None:
        self.sessions[member.member_id] = session
        session.follow(member, now_ms)

    def _check_topics(self, wish: Wish, present: MemberInfo | None) -> None:
        error = missing_topic(wish.subscribed, () if present is None else present.topics, self._catalog)
        if error is not None:
            raise error

    def _stranger(self, member_id: str) -> PenstockError:
        """What is answered to who is no member, or none for long."""
        session = self.sessions.get(member_id)
        condemned = self._removed.of(member_id) if session is None else session.condemned
        returning = session is not None and session.returning
        return stranger(self.group_id, member_id, condemned, returning=returning)
