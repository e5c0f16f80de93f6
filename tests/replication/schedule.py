"""Random schedules of a world: every run draws its own rate of each kind of disruption; then fair runs without any.

A world is a pure function of its seed: the schedule alone draws lots.
"""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

from penstock.raft.image import NO_LEADER
from tests.replication.fair import can_lose
from tests.replication.steps import Step, do, parse
from tests.replication.world import NODES, PRODUCERS, World

STEPS = 400
TRACES = Path(__file__).parent.parent / "traces"
FROM_TRACES = 4
"""Each so many seeds begin with some steps of a golden trace: chance alone comes to few of the states that matter."""
RARE = (0.003, 0.01, 0.03, 0.1, 0.0)
SOMETIMES = (0.1, 0.3)
OFTEN = (1.0, 0.5, 0.2, 0.07)
FOCUSES = ("all", "elections", "disks", "changes", "restarts")
"""What a run has more of than others."""
OLD_VIEWS = 12

Draw = Callable[[World], Step | None]


class Chance:
    """What a run's lots are drawn by, and its rates."""

    nodes: tuple[int, ...] = NODES

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def node(self) -> int:
        return self.nodes[int(self.rng.random() * len(self.nodes))]

    def rates(self) -> list[tuple[Draw, float]]:
        """Actions with the weights of this run."""
        rng, one, two = self.rng, self._one, self._two
        focus = rng.choice(FOCUSES)

        def rare(*focuses: str) -> float:
            return rng.choice(SOMETIMES if focus in focuses else RARE)

        def often() -> float:
            return rng.choice(OFTEN)

        return [
            (self._any_of([Step("produce", (node, producer)) for node in self.nodes for producer in PRODUCERS]), 0.5),
            (one("flush"), 1.5),
            (one("outcomes"), 1.5),
            (two("push"), 6 * often()),
            (self._deliver, 3.0),
            (self._lose, often()),
            (self._open_missing, 1.0),
            (one("open"), rare("elections")),
            (one("learn"), often()),
            (self._register, often()),
            (one("start"), often()),
            (lambda w: _step("learn", self.node(), back=rng.randrange(OLD_VIEWS)), rare("restarts")),
            (one("crash"), rare("disks", "restarts")),
            (one("wipe"), rare("disks")),
            (one("copy"), rare("disks")),
            (one("restore"), rare("disks")),
            (one("fence"), rare("changes")),
            (self._fail, rare()),
            (self._elect_if_due, 0.5),
            (one("elect"), rare("elections", "restarts")),
            (self._any_of([Step("repeat", (n, p, s)) for n in self.nodes for p in PRODUCERS for s in range(4)]), 0.2),
            (
                self._any_of([Step("submit", (n, p, s)) for n in self.nodes for p in PRODUCERS for s in range(1, 4)]),
                0.1,
            ),
            (one("ask"), 0.1),
            (one("resend"), rare("changes")),
            (self._apply, often() / (4 if focus == "changes" else 1)),
            (two("unreachable"), rare("changes", "disks")),
            (one("tick"), often() / 2),
            (self._any_of([Step("wait")]), rng.choice((0.02, 0.1, 0.5))),
        ]

    def _one(self, verb: str) -> Draw:
        return self._any_of([Step(verb, (node,)) for node in self.nodes])

    def _two(self, verb: str) -> Draw:
        return self._any_of([Step(verb, (node, other)) for node in self.nodes for other in self.nodes if node != other])

    def _any_of(self, steps: list[Step]) -> Draw:
        chance, count = self.rng.random, len(steps)
        return lambda w: steps[int(chance() * count)]

    def _open_missing(self, world: World) -> Step | None:
        node = self.node()
        return _step("open", node) if world.nodes[node].session is None else None

    def _channel(self, world: World, verb: str) -> Step | None:
        if not world.messages:
            return None
        sender, to, back = world.channel_of(self.rng.choice(world.messages))
        return _step(verb, sender, to, back=back)

    def _deliver(self, world: World) -> Step | None:
        return self._channel(world, "deliver")

    def _lose(self, world: World) -> Step | None:
        return self._channel(world, "lose")

    def _register(self, world: World) -> Step:
        return _step("register", self.node(), unanswered=self.rng.random() < 0.1)

    def _fail(self, world: World) -> Step | None:
        node = self.node()
        queue = world.nodes[node].disk.queue
        return _flag("flush", node, fail=self.rng.randrange(len(queue))) if queue else None

    def _elect_if_due(self, world: World) -> Step | None:
        return _step("elect", self.node()) if world.info.leader == NO_LEADER else None

    def _apply(self, world: World) -> Step | None:
        if not world.commands:
            return None
        sender = self.rng.choice(world.commands)[0]
        nth = self.rng.randrange(len(world.commands_of(sender)))
        return _step("apply", sender, nth=nth, unanswered=self.rng.random() < 0.2)


def _step(verb: str, *args: int, **options: int) -> Step:
    """Options that say nothing are left out."""
    return _flag(verb, *args, **{name: value for name, value in options.items() if value})


def _flag(verb: str, *args: int, **options: int) -> Step:
    return Step(verb, args, tuple(sorted(options.items())))


def run(world: World, seed: int, steps: int = STEPS) -> None:
    """Take random actions, checking every invariant after each; then go on without faults. Raises Violation."""
    chance = Chance(seed)
    rng = chance.rng
    if seed % FROM_TRACES == 0:
        _begin(world, rng)
    elif rng.random() < 0.5:
        do(world, Step("exchange", NODES))
    walk(world, chance, steps)
    cut_off = chance.node()
    if rng.random() < 0.3 and can_lose(world, cut_off):
        do(world, Step("settle", tuple(node_id for node_id in NODES if node_id != cut_off)))
    do(world, Step("settle"))


@cache
def traces() -> list[list[Step]]:
    """The steps of the golden traces."""
    files = [json.loads(path.read_text()) for path in sorted(TRACES.glob("*.json"))]
    return [[parse(text.removeprefix("mutant: "))[0] for text in trace["steps"]] for trace in files]


def _begin(world: World, rng: random.Random) -> None:
    steps = rng.choice(traces())
    for step in steps[: rng.choice((len(steps), rng.randrange(len(steps))))]:
        if step.verb not in {"settle", "committed"}:
            do(world, step)


def walk(world: World, chance: Chance, steps: int) -> None:
    draws, weights = zip(*chance.rates(), strict=True)
    taken = 0
    for draw in chance.rng.choices(draws, weights, k=20 * steps):
        step = draw(world)
        if step is not None and do(world, step):
            taken += 1
            if taken == steps:
                return
