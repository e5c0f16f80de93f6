"""What is done to a world, as a list that is drawn from the seed before it begins: faults, commands, changes.

An action says all that it needs, and draws nothing when it happens: leaving others out does not change it. Whom it
strikes may be "whoever leads then", because that is where it hurts.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.simulation.consensus.options import Options

START_S = 0.5  # nothing is done before
LEADER_SHARE = 0.4  # of all actions strike the leader


@dataclass(frozen=True, slots=True)
class Action:
    """One thing done to the world: a method of `faults.Faults`, its node, and its further arguments."""

    at: float  # seconds after the world's beginning
    kind: str
    node: int
    leads: bool = False  # the leader, if there is one, else `node`
    arguments: tuple[Any, ...] = ()


Plan = tuple[Action, ...]
Draw = Callable[[random.Random, int], tuple[Any, ...]]


def _some(rng: random.Random, count: int) -> tuple[tuple[int, float], ...]:
    """Some nodes, each with a short time."""
    return tuple((node, round(0.005 + 0.1 * rng.random(), 4)) for node in range(1, count + 1) if rng.random() < 0.5)


def _commit(rng: random.Random) -> tuple[int, bool]:
    """One of the next commits, and whether it becomes durable."""
    return rng.randrange(3), rng.random() < 0.5


def _cut(rng: random.Random) -> tuple[int, bool, bool]:
    """Ways (1 out, 2 in, 3 both); whether streams hang; else whether what is under way still arrives."""
    return rng.choice((1, 2, 3)), rng.random() < 0.5, rng.random() < 0.5


def _storm(rng: random.Random, count: int) -> tuple[tuple[int, float, tuple[int, bool] | None], ...]:
    """Each node, when it loses patience, and perhaps the commit with which its power goes."""
    return tuple(
        (node, round(0.01 * rng.random(), 5), _commit(rng) if rng.random() < 0.3 else None)
        for node in range(1, count + 1)
    )


_DRAWS: dict[str, Draw] = {
    "crash": lambda rng, _: (rng.random() < 0.2,),
    "crash_some": lambda rng, count: (tuple(node for node, _ in _some(rng, count)),),
    "bounce": lambda rng, count: (_some(rng, count),),
    "power": lambda rng, _: _commit(rng),
    "fail": lambda rng, _: (rng.randrange(3),),
    "storm": lambda rng, count: (_storm(rng, count),),
    "cut": lambda rng, count: (rng.randint(1, count - 1), *_cut(rng)),
    "isolate": lambda rng, _: _cut(rng),
    "split": lambda rng, count: (rng.randint(1, 2**count - 2), rng.random() < 0.5, rng.random() < 0.5),
    "bridge": lambda rng, _: (rng.random() < 0.5, rng.random() < 0.5),
    "blink": lambda rng, count: (rng.randint(1, count - 1), *_cut(rng)[::2]),
    "pause": lambda rng, _: (round(2.5 * rng.random(), 3),),
    "slow": lambda rng, _: (round(0.005 + 0.15 * rng.random() ** 2, 4), round(1 + 4 * rng.random(), 3)),
    "full": lambda rng, _: (round(0.05 + rng.random(), 3),),
    "echo": lambda rng, _: (round(0.5 + 2 * rng.random(), 3),),
    "transfer": lambda rng, count: (rng.randint(0, count),),
}


def _nothing(_rng: random.Random, _count: int) -> tuple[Any, ...]:
    return ()


def draw_plan(seed: int, options: Options) -> Plan:
    """The plan of a seed: all faults, commands and changes of the configuration, by time."""
    rng = random.Random(seed ^ 0xFA017)
    count = options.nodes
    plan: list[Action] = []
    kinds, weights = tuple(options.weights), tuple(options.weights.values())
    for at in _times(rng, options.faults_per_s, options.seconds):
        kind = rng.choices(kinds, weights)[0]
        arguments = _DRAWS.get(kind, _nothing)(rng, count)
        plan.append(Action(at, kind, rng.randint(1, count), rng.random() < LEADER_SHARE, arguments))
    for at in _times(rng, options.commands_per_s, options.seconds):
        again = rng.random() < 0.1
        plan.append(Action(at, "submit", rng.randint(1, count), arguments=(rng.choice((1, 1, 1, 5)), again)))
    changes = _times(rng, options.changes_per_s, options.seconds)
    plan += [Action(at, "change", rng.randint(1, count), arguments=(rng.random() < 0.3,)) for at in changes]
    plan.sort(key=lambda action: action.at)
    return tuple(plan)


def _times(rng: random.Random, rate: float, end: float) -> list[float]:
    times: list[float] = []
    time = START_S
    while rate and (time := time + rng.expovariate(rate)) < end:
        times.append(round(time, 4))
    return times


def to_json(plan: Plan) -> list[Any]:
    """The plan as JSON can say it."""
    return [asdict(action) for action in plan]


def from_json(data: list[Any]) -> Plan:
    """The plan of such data."""
    return tuple(Action(**{**item, "arguments": _tuples(item["arguments"])}) for item in data)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
