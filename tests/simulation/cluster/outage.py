"""After healing, in some worlds: one node fails once more, and everything that can take writes must do so soon."""

from typing import TYPE_CHECKING

from tests.simulation.cluster.checks import Violation
from tests.simulation.cluster.machine import Machine

if TYPE_CHECKING:
    from tests.simulation.cluster.world import World

BOUND_S = 9.0
"""A session, the lag of replicas, elections of the controller and of leaders: all within this."""


class Outage:
    """One node loses its power, or its store's disk hangs while it goes on to heartbeat (rule 29)."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._machine: Machine | None = None

    @property
    def may_begin(self) -> bool:
        """Everything has converged, and all voters vote."""
        world = self._world
        return world.checks.converged() is None and all(machine.may_vote for machine in world.machines.values())

    def begin(self) -> list[tuple[str, int]]:
        """Let a node fail; the partitions that take writes without it."""
        world = self._world
        rng = world.scheduler.rng("outage")
        machine = self._machine = rng.choice(list(world.machines.values()))
        hangs = rng.random() < 0.5 or not world.checks.may_end(machine)
        world.trace("outage", machine.node_id, hangs)
        world.checks.count("outages")
        if hangs:
            machine.hangs = True
        else:
            machine.is_out = True
            world.lose(machine, silently=True)
        world.scheduler.after(BOUND_S, self._look)
        return [
            (topic.name, info.partition)
            for topic in world.checks.image.topics.values()
            for info in (() if topic.internal else topic.partitions)
            if len(set(info.isr) - {machine.node_id}) >= topic.config.min_insync_replicas
            and not (hangs and machine.node_id in (info.leader, info.replicas[0]))  # the first may be about to lead
        ]

    def end(self) -> None:
        """It works again."""
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.hangs = machine.is_out = False
            self._world.start(machine)

    def _look(self) -> None:
        if self._machine is not None:
            left = self._world.workload.unfinished()
            text = f"node {self._machine.node_id} has been out for {BOUND_S} s, not all takes writes: {left}"
            self._world.fail(Violation(f"liveness: {text}"))
