"""Golden traces: schedules of the replication world, played action by action, on the real cores and on a mutant's.

On the real code a trace is strict: each step must be possible, and those marked `mutant:` impossible (only the broken
rule allows them); every invariant holds after each, the end is as written, then there is progress. So a trace
cannot silently stop testing what it is for. With a mutant, what is impossible is passed over.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.raft.image import NO_LEADER
from tests.replication.fair import settle
from tests.replication.invariants import NAMES
from tests.replication.mutants import Mutant, violation_of
from tests.replication.steps import Step, do, parse
from tests.replication.world import Violation, World

FOLDER = Path(__file__).parent
ONLY_MUTANT = "mutant: "


class TraceError(Exception):
    """The trace is not what it says: it no longer tests what it was written for."""


@dataclass(frozen=True)
class Trace:
    """One file. See README.md."""

    name: str
    rule: str
    shows: str
    source: str
    mutants: dict[str, str]
    """Name of the mutant to the invariant that it breaks."""
    steps: list[str]
    end: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def all_traces() -> dict[str, Trace]:
    return {path.stem: Trace.load(path) for path in sorted(FOLDER.glob("*.json"))}


def play(trace: Trace) -> World:
    """On the real code, strictly."""
    world = World()
    for text in trace.steps:
        _play_step(world, text)
    if end_of(world) != trace.end:
        raise TraceError(f"{trace.name} ends with {end_of(world)}")
    settle(world)
    return world


def _play_step(world: World, text: str) -> None:
    step, kind = parse(text.removeprefix(ONLY_MUTANT))
    done = _is_kind(world, step, kind) and do(world, step)
    if done and text.startswith(ONLY_MUTANT):
        raise TraceError(f"{text!r} is possible on the real code")
    if not done and not text.startswith(ONLY_MUTANT):
        raise TraceError(f"{text!r} cannot be done at this point")


def _is_kind(world: World, step: Step, kind: str) -> bool:
    if not kind:
        return True
    message = world.first_in((step.args[0], step.args[1], dict(step.options).get("back", 0)))
    return message is not None and message.kind == kind


def play_mutant(trace: Trace, mutant: Mutant) -> Violation | None:
    """What the schedule violates with the rule broken."""
    with mutant.apply() as build:
        steps = [parse(text.removeprefix(ONLY_MUTANT))[0] for text in trace.steps]
        return violation_in(build(), steps, with_settle=mutant.liveness)


def violation_in(world: World, steps: Iterable[Step], *, with_settle: bool) -> Violation | None:
    """What these steps violate; those that cannot be done are passed over."""

    def go() -> None:
        for step in steps:
            do(world, step)
        if with_settle:
            do(world, Step("settle"))

    return violation_of(go)


def end_of(world: World) -> dict[str, Any]:
    """The state of a world in a reader's words."""
    info = world.info
    return {
        "leader": NAMES.get(info.leader, "none") if info.leader != NO_LEADER else "none",
        "leader_epoch": info.leader_epoch,
        "isr": "".join(NAMES[node_id] for node_id in info.isr),
        "elr": "".join(NAMES[node_id] for node_id in info.elr),
        "committed": [str(entry) for entry in world.committed],
        "durable": {NAMES[node.id]: [str(entry) for entry in node.disk.entries] for node in world.nodes.values()},
    }
