"""Which fault comes when: drawn from a seed. Pure: the same seed, profile, shape and faults give the same plan.

A plan is a row of waves: one fault, or two that overlap, then quiet time in which the cluster recovers and a measure of
it can be taken. Each fault of the profile comes once, in an order of its own for each seed, before any comes again.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from penstock.chaos.faults.base import Fault, Params, Shape

Range: TypeAlias = tuple[float, float]
"""The least and the greatest."""
Groups: TypeAlias = Mapping[str, Sequence[Fault]]
"""Faults by the name of their group, as in `faults.registry.GROUPS`."""

LENGTHS_S: Mapping[str, Range] = {
    "pause-all-briefly": (0.2, 1.0),  # all of them stay below the session timeout
    "pause-leader": (3.0, 15.0),  # past it, so that others take over
    "pause-controller": (3.0, 15.0),
    "pause-node": (3.0, 15.0),
    "pause-coordinator": (3.0, 15.0),
    "leader-transfer": (14.0, 20.0),  # past preferred_leader_delay_ms, so that leaderships move meanwhile
}
"""Lengths of the faults that make sense in these only; a profile may say otherwise."""
STEPWISE = frozenset({"kill-repeatedly", "restart-node", "rolling-restart"})
"""Work on processes in steps of their own, so they overlap with no other fault of processes: that would undo them."""
OF_PROCESSES = frozenset({"kill-coordinator", "pause-coordinator"})
"""Are of another group, and work on processes as well."""
SECOND_BEGINS = (0.1, 0.9)
"""Share of the first fault's length after which an overlapping one begins."""


class PlanError(Exception):
    """The profile allows no plan, or a text holds none; the message says why."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to come."""

    id: int
    """From 1 on, in the order of `at_s`."""
    at_s: float
    """Counted from the beginning of the plan."""
    fault: str
    duration_s: float
    """From when it is there until it is healed."""
    params: Params

    @property
    def end_s(self) -> float:
        """When it is to be healed."""
        return self.at_s + self.duration_s


Plan: TypeAlias = tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a scenario wants of its plan."""

    weights: Mapping[str, float]
    """By the fault's name, how often it comes when all have come once. No faults: a plan without any."""
    length_s: Range = (5.0, 20.0)
    lengths_s: Mapping[str, Range] = field(default_factory=dict)
    """By the fault's name, where its length is special to this profile."""
    quiet_s: Range = (30.0, 40.0)
    """Between the end of all faults and the next one."""
    warm_up_s: float = 30.0
    """Before the first."""
    overlap: float = 0.0
    """Share of waves in which a second fault begins during the first."""

    def length_of(self, name: str) -> Range:
        """Give the range of a fault's length."""
        return self.lengths_s.get(name) or LENGTHS_S.get(name) or self.length_s


def make_plan(seed: int, duration_s: float, profile: Profile, shape: Shape, groups: Groups) -> Plan:
    """Draw the plan of a run whose faults are all healed by `duration_s`. Raises PlanError."""
    _check(profile, groups)
    return _Drawing(seed, duration_s, profile, shape, groups).plan()


def waves(plan: Plan) -> list[Plan]:
    """Divide a plan where no fault is under way."""
    found: list[list[Planned]] = []
    for planned in sorted(plan, key=lambda planned: (planned.at_s, planned.id)):
        if found and planned.at_s < max(other.end_s for other in found[-1]):
            found[-1].append(planned)
        else:
            found.append([planned])
    return [tuple(wave) for wave in found]


def may_overlap(first: str, second: str, group_of: Mapping[str, str]) -> bool:
    """Say whether two faults make sense at once: those of two groups do, and two that end or freeze processes."""
    one, other = ("process" if name in OF_PROCESSES else group_of[name] for name in (first, second))
    if one != other:
        return True
    return one == "process" and first != second and not STEPWISE & {first, second}


def to_json(plan: Plan) -> list[dict[str, Any]]:
    """Give what `from_json` reads, ready for JSON."""
    return [asdict(planned) for planned in plan]


def from_json(items: Iterable[Mapping[str, Any]]) -> Plan:
    """Read a plan. Raises PlanError."""
    try:
        return tuple(
            Planned(int(i["id"]), float(i["at_s"]), str(i["fault"]), float(i["duration_s"]), dict(i["params"]))
            for i in items
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"no plan of faults: {error!r}") from error


def _check(profile: Profile, groups: Groups) -> None:
    known = {fault.name for faults in groups.values() for fault in faults}
    if unknown := sorted(profile.weights.keys() - known):
        raise PlanError(f"there are no faults {', '.join(unknown)}")
    if wrong := sorted(name for name, weight in profile.weights.items() if not weight > 0):
        raise PlanError(f"weights must be above 0: {', '.join(wrong)}")
    ranges = [profile.quiet_s, profile.length_s, *profile.lengths_s.values()]
    if wrong_ranges := [between for between in ranges if not 0 <= between[0] <= between[1]]:
        raise PlanError(f"no range of seconds: {wrong_ranges[0]}")


class _Drawing:
    """One plan being drawn. Names are sorted before anything is drawn from them, so no order of a set matters."""

    def __init__(self, seed: int, duration_s: float, profile: Profile, shape: Shape, groups: Groups) -> None:
        self._seed, self._duration_s, self._profile, self._shape = seed, duration_s, profile, shape
        self._faults = {fault.name: fault for faults in groups.values() for fault in faults}
        self._group_of = {fault.name: group for group, faults in groups.items() for fault in faults}
        self._names = sorted(profile.weights)
        self._rng = random.Random(f"{seed}/plan")  # noqa: S311  a plan is to be repeatable, not secret
        self._plan: list[Planned] = []

    def plan(self) -> Plan:
        """Draw wave after wave, as long as one ends in time."""
        at_s = self._profile.warm_up_s
        for name in self._order():
            wave = self._wave(name, at_s)
            if not wave:
                break
            self._plan += wave
            at_s = max(planned.end_s for planned in wave) + self._rng.uniform(*self._profile.quiet_s)
        if self._names and not self._plan:
            raise PlanError(f"{self._duration_s:g} s have no room for a fault after {self._profile.warm_up_s:g} s")
        return tuple(self._plan)

    def _order(self) -> Iterable[str]:
        yield from self._rng.sample(self._names, len(self._names))
        while self._names:
            yield self._weighted(self._names)

    def _weighted(self, names: Sequence[str]) -> str:
        return self._rng.choices(names, [self._profile.weights[name] for name in names])[0]

    def _wave(self, name: str, at_s: float) -> list[Planned]:
        """Nothing: it would not end in time."""
        first = self._draw(len(self._plan) + 1, name, at_s)
        if first.end_s > self._duration_s:
            return []
        others = [other for other in self._names if may_overlap(name, other, self._group_of)]
        if not others or self._rng.random() >= self._profile.overlap:
            return [first]
        begins = at_s + first.duration_s * self._rng.uniform(*SECOND_BEGINS)
        second = self._draw(first.id + 1, self._weighted(others), begins)
        return [first, second] if second.end_s <= self._duration_s else [first]

    def _draw(self, number: int, name: str, at_s: float) -> Planned:
        """Each fault draws from a source of its own, so that a change of one moves nothing else."""
        length = round(self._rng.uniform(*self._profile.length_of(name)), 3)
        own = random.Random(f"{self._seed}/{number}/{name}")  # noqa: S311  as above
        params = json.loads(json.dumps(self._faults[name].draw(own, self._shape)))
        return Planned(number, round(at_s, 3), name, length, params)
