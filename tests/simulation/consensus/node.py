"""A node of a world: the real machine on the real journal over a simulated disk.

It runs a round when something arrives (not at once: what arrives in between is taken together) and when its next
deadline is due, as the consensus thread does.
"""

import random
import struct
import zlib
from collections.abc import Sequence
from heapq import heappush
from typing import TYPE_CHECKING, Any

from penstock.raft import messages
from penstock.raft.core import LEADER
from penstock.raft.errors import JournalWriteError
from penstock.raft.machine import Connected, Disconnected, Event
from penstock.raft.membership import Membership
from penstock.raft.outbox import Message
from tests.simulation.consensus.disk import MemoryDisk, MirroredDisk, PowerLoss

if TYPE_CHECKING:
    from tests.simulation.consensus.world import World

NEVER = float("inf")
_DIGEST = struct.Struct(">QI")
_NUMBER = struct.Struct(">I")
_FACTS = struct.Struct(">dIQQQI")


class Ledger:
    """The replicated state: how many commands, a digest over them, and those that must not repeat.

    A command is "number.attempt"; with an "r" before it, it is tried again until it is acknowledged, and counts once.
    """

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.count = 0
        self.digest = 0
        self.once: dict[int, None] = {}

    def apply(self, index: int, command: bytes) -> bytes:
        effective = True
        if command[:1] == b"r":
            number = int(command[1 : command.index(b".")])
            effective = number not in self.once
            self.once[number] = None
        if effective:
            self.count += 1
            self.digest = zlib.crc32(command, self.digest)
        result = b"%d" % self.count
        self.node.world.checks.applied(self.node, index, command, (self.digest, result, effective))
        return result

    def snapshot(self) -> bytes:
        self.node.see_commit()  # now, for the log is about to be cut behind it
        numbers = b"".join(map(_NUMBER.pack, self.once))
        return _DIGEST.pack(self.count, self.digest) + numbers + b"." * 200

    def restore(self, index: int, data: bytes) -> None:
        self.count, self.digest = _DIGEST.unpack_from(data)
        self.once = {number: None for (number,) in _NUMBER.iter_unpack(data[_DIGEST.size : -200])}
        self.node.world.checks.restored(self.node, index, self.digest)


class Node:
    """One node, up or down. A Wire for its own machine."""

    journal: Any
    machine: Any

    def __init__(self, world: "World", node_id: int, *, founding: bool) -> None:
        self.world = world
        self.id = node_id
        self.disks = 0
        self.disk = self._make_disk(founding=founding)
        self.former: MemoryDisk | None = None  # the disk that was lost, if it was
        self.up = False
        self.generation = 0

    def _make_disk(self, *, founding: bool) -> MemoryDisk:
        self.disks += 1
        journal_id = random.Random((self.world.seed * 16 + self.id) * 4096 + self.disks).randbytes(16)
        path = self.world.options.lmdb
        if path is None:
            return MemoryDisk(self.id, journal_id, founding=founding)
        return MirroredDisk(self.id, journal_id, founding=founding, path=path)

    def wipe(self) -> None:
        """The disk is lost; a new one is formatted to join."""
        self.former, self.disk = self.disk, self._make_disk(founding=False)

    def start(self) -> None:
        """Start the process on what is on the disk."""
        world = self.world
        self.generation += 1
        self.up = True
        self.inbox: list[Event] = []
        self.is_busy = False  # in a round
        self.prompted = False
        self.deadline = self.timer_at = NEVER
        self.paused_until = self.full_until = -NEVER
        self.heard_at, self.heard_from, self.heard_term = -NEVER, 0, 0  # when, which leader, and of which term
        self.reaction_s = world.options.reaction_s
        self.voters: frozenset[int] | None = None
        self.term = self.led_term = -1
        self.journal = world.options.journal(self.disk)
        rng = random.Random(~((world.seed * 16 + self.id) * 4096 + self.generation))
        outbox = world.options.outbox(self)
        self.machine = world.options.machine(world.settings(self.id), self.journal, outbox, Ledger(self), rng)
        self.commit: int = self.machine.raftLastApplied
        self.base = self.last_change = -1
        world.checks.started(self)
        self._prompt(world.now)

    def stop(self) -> None:
        """The process is gone; so is all that was not on disk."""
        self.up = False
        self.generation += 1
        self.inbox = []
        self.disk.repair()

    def heal(self) -> None:
        """No pause, no slowness, no full queue any more."""
        now = self.world.now
        self.paused_until = self.full_until = now
        self.reaction_s = self.world.options.reaction_s
        self._prompt(now)

    # --- rounds ------------------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Something has happened: a round soon."""
        self.inbox.append(event)
        if not self.prompted:
            self._prompt(self.world.now + self.reaction_s)

    def _prompt(self, time: float) -> None:
        self.prompted = True
        time = max(time, self.paused_until)
        world = self.world
        world.sequence += 1
        heappush(world.events, (time, world.sequence, self._on_prompt, (self.generation,)))

    def _on_prompt(self, generation: int) -> None:
        if generation == self.generation:
            if self.world.now < self.paused_until:
                self._prompt(self.paused_until)
            else:
                self.prompted = False
                self._round()

    def expect(self, deadline: float) -> None:
        """A round at this time, unless something comes before."""
        self.deadline = deadline
        if deadline < self.timer_at:  # else the timer that there is looks again when it goes off
            self.timer_at = deadline
            world = self.world
            world.sequence += 1
            heappush(world.events, (deadline, world.sequence, self._on_timer, (self.generation, deadline)))

    def _on_timer(self, generation: int, time: float) -> None:
        if generation != self.generation or time != self.timer_at:
            return
        self.timer_at = NEVER
        if time < self.deadline:
            self.expect(self.deadline)
        elif time < self.paused_until:
            self.expect(self.paused_until)
        else:
            self._round()

    def _round(self) -> None:
        world, machine = self.world, self.machine
        events, self.inbox = self.inbox, []
        self.is_busy = True
        try:
            machine.round(events)
        except PowerLoss:
            world.lose(self, silently=True)
            return
        except JournalWriteError:
            world.trace("commit failed", self.id)
            world.lose(self, silently=False)
            return
        self.is_busy = False
        term, commit = machine._SyncObj__raftCurrentTerm, machine._SyncObj__raftCommitIndex
        leads = machine._SyncObj__raftState == LEADER
        if commit != self.commit:
            self.see_commit()
        if leads and term != self.led_term:
            self.led_term = term
            world.checks.leads(self, term)
        stack = machine._configurations
        if stack[-1][0] != self.last_change or stack[0][0] != self.base:
            world.checks.configured(self)
            self.base, self.last_change = stack[0][0], stack[-1][0]
        self.term = term
        last = self.journal[-1].index
        world.steps += 1
        world.hash = zlib.crc32(_FACTS.pack(world.now, self.id, term, commit, last, leads), world.hash)
        if world.lines is not None:
            world.note(f"node {self.id}: {'leads' if leads else 'term'} {term}, commit {commit}, last {last}")
        if machine.busy:
            self.take_up()
        now = world.now
        if leads:
            self.expect(machine._SyncObj__newAppendEntriesTime + 1e-6)
        else:
            self.expect(max(machine._SyncObj__raftElectionDeadline, now) + 1e-6)

    def see_commit(self) -> None:
        """The commit index may have moved."""
        before, now = self.commit, self.machine.raftCommitIndex
        if now != before:
            self.world.checks.committed(self, before, now)
            self.commit = now

    def take_up(self) -> None:
        """There is more to do."""
        if not self.prompted:
            self._prompt(self.world.now + 0.0001)

    @property
    def membership(self) -> Membership:
        """The configuration in force."""
        membership: Membership = self.machine.membership
        return membership

    # --- the machine's wire ------------------------------------------------------------------------------------------

    def post(self, batch: Sequence[tuple[int, Message]]) -> None:
        """Send messages, after each was checked."""
        world = self.world
        checks, network, codec = world.checks.sent, world.network, world.options.codec
        for receiver, message in batch:
            for check in checks[message["type"]]:
                check(self, receiver, message)
            network.send(self.id, receiver, messages.encode(message) if codec else message)

    def has_room(self, peer: int) -> bool:
        """Whether a message to this peer can leave."""
        world = self.world
        if world.now >= self.full_until and world.network.has_stream(self.id, peer):
            return True
        world.network.lost_at[self.id, peer] = world.now
        return False

    def set_voters(self, addresses: dict[int, str]) -> None:
        """Keep streams to these. Whoever comes or goes gets a new one: an observer is reached over its own dial."""
        voters = frozenset(addresses)
        if self.voters is not None:
            for peer in sorted(voters ^ self.voters):
                self.world.network.renew_soon(self.id, peer)
        self.voters = voters

    def notify(self, peer: int, *, up: bool) -> None:
        """Tell the machine about its own stream to a peer."""
        if self.up:
            self.take(Connected(peer) if up else Disconnected(peer))
            if not up:
                if peer == self.heard_from:
                    self.heard_at = -NEVER
                self.world.network.dial_soon(self.id, peer)
