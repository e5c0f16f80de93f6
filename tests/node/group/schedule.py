"""Random schedules of a group's world: every run draws its own rates of what goes wrong; then a time without any.

A world is a pure function of its seed: the schedule alone draws lots.
"""

import random
from collections.abc import Callable

from penstock.raft.image import GroupPartition
from tests.node.group.client import Client
from tests.node.group.world import GRACE_MS, NODES, GroupWorld, Seat, Stream, Violation

STEPS = 1_500
FAIR_MS = 25_000
STEP_MS = (0, 0, 0, 1, 2, 5, 20)
LULL_MS = (300, 1_000, 2_500)
SESSION_MS = 3_000
RATES = (0.0, 0.1, 0.3, 1.0)
MAX_CLIENTS = 6


class Schedule:
    """One run."""

    def __init__(self, world: GroupWorld, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self._made = 0
        self._has_instances = self.rng.random() < 0.3
        self._has_patterns = self.rng.random() < 0.5
        self._lulls = self.rng.choice((0.0, 0.003, 0.01))
        self._lateness = self.rng.choice((0.0, 0.5, 0.95))
        """Of commits."""
        self._insight = self.rng.choice((0.02, 1.0))
        """Of coordinators that are deposed."""
        self._slowness = self.rng.choice((0.0, 0.5, 0.9))
        """Of commands."""

    def run(self) -> None:
        """Raise Violation where something does not hold."""
        rng, world = self.rng, self.world
        for _ in range(rng.randint(2, 4)):
            self._add()
        acts = self._acts()
        names, weights = [act for act, _ in acts], [weight for _, weight in acts]
        for act in rng.choices(names, weights, k=STEPS):
            world.now_ms += rng.choice(STEP_MS) if rng.random() > self._lulls else rng.choice(LULL_MS)
            act()
            world.check()
        self._be_fair()
        world.check_end()

    def _acts(self) -> list[tuple[Callable[[], object], float]]:
        def rare() -> float:
            return self.rng.choice(RATES)

        return [
            (self._up, 12.0),
            (self._down, self.rng.choice((3.0, 12.0, 12.0))),
            (self._client, 16.0),
            (self._seat, 14.0),
            (self._command, 6.0),
            (self._commit, 4.0),
            (self._beat_apart, 4 * rare()),
            (self._elect, rare() / 3),
            (self._break, rare()),
            (self._pause_client, rare()),
            (self._pause_seat, rare() / 2),
            (self._crash, rare() / 2),
            (self._leave, rare() / 2),
            (self._add, rare() / 2),
            (self.world.change_topics, rare() / 4),
        ]

    # ---- what happens

    def _up(self) -> None:
        if self.world.streams:
            self.world.deliver_up(self._stream())

    def _down(self) -> None:
        if self.world.streams:
            self.world.deliver_down(self._stream())

    def _stream(self) -> Stream:
        return self.rng.choice(list(self.world.streams.values()))

    def _client(self) -> None:
        self._maintain(self.rng.choice(self.world.clients), hurry=False)

    def _maintain(self, client: Client, *, hurry: bool) -> None:
        world, rng = self.world, self.rng
        if world.now_ms < client.paused_until_ms:
            return
        if not client.alive or (client.left and client.stream is None):
            if rng.random() < 0.05 and not hurry:
                world.restart(client)
            return
        if hurry or rng.random() < 0.3:
            world.poll(client)
        client.expire(world.now_ms)
        if client.must_rejoin and client.stream is not None:
            world.break_stream(world.streams[client.stream])
        if client.stream is None:
            self._connect(client, hurry=hurry)
            return
        if world.now_ms >= client.beat_ms + client.session_ms // 3 and client.is_joined:
            world.beat(client, apart=False)
        if hurry or rng.random() < 0.5:
            world.release(client)
        if client.held and rng.random() < 0.3:
            world.send_commit(client, rng.choice(sorted(client.held)))

    def _connect(self, client: Client, *, hurry: bool) -> None:
        seats = self.world.seats
        if hurry:
            seats = [self.world.present] if self.world.present is not None else []
        if seats and self.world.now_ms >= client.retry_ms and (hurry or self.rng.random() < 0.5):
            self.world.connect(client, self.rng.choice(seats))

    def _seat(self) -> None:
        world, rng = self.world, self.rng
        if world.present is None and rng.random() < 0.3:
            world.load()
        if not world.seats:
            return
        seat = rng.choice(world.seats)
        acts: tuple[Callable[[Seat], None], ...] = (world.tick, world.propose, world.propose, self._resume)
        if seat is world.present or rng.random() < self._insight:
            acts = (*acts, world.show)
        rng.choice(acts)(seat)

    def _resume(self, seat: Seat) -> None:
        if self.rng.random() < 0.3:
            self.world.resume(seat)

    def _command(self) -> None:
        world, rng = self.world, self.rng
        if not world.commands or rng.random() < self._slowness:
            return
        command = rng.choice(world.commands)
        lot = rng.random()
        if lot < 0.45:
            world.apply(command)
        elif lot < 0.5:
            world.answer(command, lost=True)
        else:
            world.answer(command, lost=False)
        if command.answered and rng.random() < 0.5:
            world.commands.remove(command)

    def _commit(self) -> None:
        world, rng = self.world, self.rng
        if world.commits and rng.random() < self._lateness:
            return
        if world.commits:
            world.carry_commit(rng.choice(world.commits))
        elif rng.random() < 0.02:
            catalog = world.catalog()
            topic_id = rng.choice(sorted(catalog.counts))
            world.send_bare_commit(GroupPartition(topic_id, rng.randrange(catalog.counts[topic_id])))

    def _beat_apart(self) -> None:
        world, rng = self.world, self.rng
        if world.beats and rng.random() < 0.7:
            world.carry_beat(rng.choice(world.beats))
            return
        client = rng.choice(world.clients)
        if client.alive and client.is_joined and (client.is_hung or world.now_ms >= client.paused_until_ms):
            world.beat(client, apart=True)

    def _elect(self) -> None:
        world, rng = self.world, self.rng
        if world.present is not None:
            others = [node_id for node_id in NODES if node_id != world.present.place[0]]
            world.elect(rng.choice(others), rng.choice((0, GRACE_MS // 2, GRACE_MS)), rng)

    def _break(self) -> None:
        streams = [stream for stream in self.world.streams.values() if not stream.is_broken]
        broken = [stream for stream in self.world.streams.values() if stream.is_broken]
        if broken and self.rng.random() < 0.5:
            self.world.notice(self.rng.choice(broken))
        elif streams:
            self.world.break_stream(self.rng.choice(streams))

    def _pause_client(self) -> None:
        client = self.rng.choice(self.world.clients)
        client.paused_until_ms = self.world.now_ms + self.rng.choice((500, 2_000, 5_000))
        client.is_hung = self.rng.random() < 0.5
        self.world.note("pause", client.member_id, "until", client.paused_until_ms)

    def _pause_seat(self) -> None:
        if self.world.seats:
            self.world.pause(self.rng.choice(self.world.seats))

    def _crash(self) -> None:
        client = self.rng.choice(self.world.clients)
        if client.alive:
            self.world.crash(client)

    def _leave(self) -> None:
        client = self.rng.choice(self.world.clients)
        if client.alive and self.world.now_ms >= client.paused_until_ms:
            self.world.leave(client, returning=bool(client.instance_id) and self.rng.random() < 0.7)

    def _add(self) -> None:
        rng = self.rng
        if self._made >= MAX_CLIENTS:
            return
        self._made += 1
        topics: tuple[str, ...] = ("t",)
        pattern = ""
        if self._has_patterns:
            topics, pattern = rng.choice(((("t",), ""), ((), ".*"), ((), "u")))
        client = self.world.client_type(
            number=self._made,
            topics=topics,
            pattern=pattern,
            instance_id=f"i{self._made}" if self._has_instances else "",
            session_ms=SESSION_MS,
            rebalance_ms=rng.choice((1_500, 4_000)),
            poll_ms=rng.choice((0, 0, 4_000)),
        )
        self.world.add_client(client)

    # ---- the end

    def _be_fair(self) -> None:
        """Nothing goes wrong any more, and everything comes to its turn, often."""
        world = self.world
        end_ms = world.now_ms + FAIR_MS
        changes = [end_ms - FAIR_MS // 3, end_ms - FAIR_MS // 2]
        while world.now_ms < end_ms:
            world.now_ms += 100
            if changes and world.now_ms >= changes[-1]:
                changes.pop()
                world.change_topics()
            world.load()
            for seat in list(world.seats):
                world.resume(seat)
                for act in (world.show, world.tick, world.propose):
                    if not seat.over:
                        act(seat)
            for command in list(world.commands):
                world.apply(command)
                world.answer(command, lost=False)
            world.commands.clear()
            for client in world.clients:
                self._maintain(client, hurry=True)
            for stream in list(world.streams.values()):
                world.notice(stream)
                for _ in range(len(stream.up)):
                    world.deliver_up(stream)
                while stream.down and stream.client.alive and world.now_ms >= stream.client.paused_until_ms:
                    world.deliver_down(stream)
            for beat in list(world.beats):
                world.carry_beat(beat)
            for commit in list(world.commits):
                world.carry_commit(commit)
            world.check()


def run(world: GroupWorld, seed: int) -> None:
    """Run a world by a seed. Raises Violation, with the seed."""
    try:
        Schedule(world, seed).run()
    except Violation as violation:
        violation.add_note(f"seed {seed}")
        raise
