"""A whole-system world: machines, clients, a network, and a plan of faults, all from one seed."""

import contextlib
import logging
import os
import random
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.node.config import Endpoint
from penstock.raft.journal import RaftJournal
from penstock.storage import PartitionKey
from tests.simulation.cluster import cleaning, clocks
from tests.simulation.cluster.checks import Checks, Violation
from tests.simulation.cluster.consensus import host_of
from tests.simulation.cluster.faults import Faults
from tests.simulation.cluster.history import Violation as HistoryViolation
from tests.simulation.cluster.machine import CLIENT_PORT, PEER_PORT, Machine
from tests.simulation.cluster.plan import Action, Options, options_of, plan_of
from tests.simulation.cluster.workload import Workload
from tests.simulation.kernel.network import Network, Weather
from tests.simulation.kernel.scheduler import START, Scheduler

STORE_VARIABLE = "SIMULATION_STORE"
TMPFS = Path("/dev/shm")
"""Where there is one: real stores are much faster there."""
HEAL_BOUND_S = 25.0
"""After healing, everything has converged, and every partition takes writes, within this."""

EVENTS_PER_S = 8_000
"""Several times what the busiest second of a world has."""


@dataclass
class Mutations:
    """What deliberate bugs put in place of the real parts."""

    journal: Callable[[Any], RaftJournal] = RaftJournal


@dataclass
class Result:
    """What became of a world."""

    seed: int
    hash: int
    failure: str | None
    lines: list[str] | None
    steps: int
    facts: dict[str, int] = field(default_factory=dict)


class World:
    """Runs one seed to its end."""

    def __init__(
        self,
        seed: int,
        plan: tuple[Action, ...] | None = None,
        *,
        options: Options | None = None,
        mutations: Mutations | None = None,
        record: bool = False,
        folder: Path | None = None,
    ) -> None:
        """`folder`: an empty one, in which machines keep their logs in the real store; else in the one in memory."""
        self.seed = seed
        self.folder = folder
        self.options = options or options_of(seed)
        self.plan = plan_of(seed) if plan is None else plan
        self.mutations = mutations or Mutations()
        self.cluster_id = "simulated"
        self.scheduler = Scheduler(seed, record=record)
        rng = self.scheduler.rng
        self.process_rng, self.lag_rng, self.disk_rng = rng("process"), rng("lag"), rng("disk")
        self.fault_rng = rng("fault")
        self._unique_rng = rng("unique")
        self.network = Network(self.scheduler, rng("network"), Weather(slow_share=self.options.slow_share))
        self.time = clocks.ProcessTime()
        self.checks = Checks(self)
        self.machines = {i: self._machine(i) for i in range(1, self.options.nodes + 1)}
        self.workload = Workload(self)
        self.faults = Faults(self)
        self.is_healed = False
        """The faults are over: whatever ends is started again."""

    def _machine(self, node_id: int) -> Machine:
        return Machine(self, node_id, founding=node_id <= self.options.voters)

    # ---- what all parts use

    @property
    def voters(self) -> Mapping[int, Endpoint]:
        return {i: Endpoint(host_of(i), PEER_PORT) for i in range(1, self.options.voters + 1)}

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{machine.host}:{CLIENT_PORT}" for machine in self.machines.values())

    def unique(self) -> bytes:
        return self._unique_rng.getrandbits(128).to_bytes(16, "big")

    def commit_gap(self) -> float:
        """Draw what passes between a write's submission and the group that takes it."""
        return 1e-4 * self.disk_rng.random()

    def trace(self, *facts: object) -> None:
        self.scheduler.trace(*facts)

    def fail(self, error: BaseException) -> None:
        self.scheduler.fail(error)

    # ---- processes

    def start(self, machine: Machine) -> None:
        if machine.process is None and not machine.is_out:
            self.trace("start", machine.node_id)
            self.network.power(machine.host)
            machine.start()

    def lose(self, machine: Machine, *, silently: bool) -> None:
        """The process is gone; so is what was not on disk. `silently`: with the machine's power."""
        process, machine.process = machine.process, None
        if process is None:
            return
        self.trace("lose", machine.node_id, silently)
        if silently:
            machine.disk.power_loss(self.disk_rng)
        else:
            machine.disk.crash()
        machine.ended()
        process.loop.close()
        self.network.lose_host(machine.host, silently=silently)
        self.checks.on_lost(machine)
        if self.is_healed:
            self.scheduler.after(0.1, self.start, machine)

    # ---- questions

    def controller(self) -> Machine | None:
        """The node that leads consensus in the highest term."""
        leading = [m for m in self.machines.values() if m.broker is not None and m.broker.raft.is_leader]
        return max(leading, key=lambda m: m.broker.raft.term if m.broker else 0, default=None)

    def leader_of(self, key: PartitionKey) -> Machine | None:
        info = self.checks.partition(key)
        return None if info is None else self.machines.get(info.leader)

    # ---- running

    def run(self) -> Result:
        """Run the plan, heal, and check that everything converges."""
        failure = None
        small = cleaning.in_small() if self.options.cleanup else contextlib.nullcontext()
        with clocks.in_place(self.time, self.scheduler), small, self._logs():
            try:
                self._run()
            except (Violation, HistoryViolation) as error:
                failure = str(error)
            except Exception as error:  # noqa: BLE001  whatever goes wrong in a world is a finding
                failure = f"{type(error).__name__}: {error}"
                if self.scheduler.lines is not None:
                    self.scheduler.lines += traceback.format_exception(error)
            finally:
                self._close()
        scheduler = self.scheduler
        return Result(self.seed, scheduler.hash, failure, scheduler.lines, scheduler.events, self.checks.facts)

    def _run(self) -> None:
        for machine in self.machines.values():
            self.start(machine)
        self.workload.start()
        self._watch(0)
        for action in self.plan:
            self.scheduler.at(START + action.time, self.faults.perform, action)
        end = max((action.time for action in self.plan), default=0.0)
        self.scheduler.run_until(START + max(end, 2.0) + 0.5)
        self.trace("heal")
        self.is_healed = True
        self.faults.heal()
        self.workload.finish()
        bound = self.scheduler.now + HEAL_BOUND_S
        while not (done := self._is_done()) and self.scheduler.now < bound:
            self.scheduler.run_until(self.scheduler.now + 0.1)
        if not done:
            raise Violation(f"liveness: not converged {HEAL_BOUND_S} s after healing: {self._why_not()}")
        self.checks.at_end()
        self.workload.check()

    def _watch(self, events: int) -> None:
        """A process that goes round in circles makes events without end."""
        made = self.scheduler.events - events
        if made > EVENTS_PER_S:
            self.fail(Violation(f"spinning: {made} events in a second"))
        self.scheduler.after(1.0, self._watch, self.scheduler.events)

    def _is_done(self) -> bool:
        return self.workload.is_done and self.checks.converged() is None

    def _why_not(self) -> str:
        return str(self.checks.converged() or self.workload.unfinished())

    def _close(self) -> None:
        self.workload.close()
        for machine in self.machines.values():
            process, machine.process = machine.process, None
            if process is not None:
                process.loop.close()
            machine.disk.crash()

    @contextlib.contextmanager
    def _logs(self) -> Iterator[None]:
        """The product's log lines go into a recorded trace, and nowhere else."""
        root = logging.getLogger()
        handler = _TraceHandler(self.scheduler)
        former, level, raising = root.handlers[:], root.level, logging.raiseExceptions
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO if self.scheduler.lines is not None else logging.CRITICAL + 1)
        try:
            yield
        finally:
            root.handlers[:] = former
            root.setLevel(level)
            logging.raiseExceptions = raising


class _TraceHandler(logging.Handler):
    """Log lines, for the reader; they are not part of the hash."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        import asyncio  # noqa: PLC0415

        if self._scheduler.lines is not None:
            try:
                name = getattr(asyncio.get_running_loop(), "name", "")
            except RuntimeError:
                name = "-"
            self._scheduler.lines.append(f"{self._scheduler.now:.6f} [{name}] {self.format(record)}")


def run(
    seed: int,
    plan: tuple[Action, ...] | None = None,
    *,
    options: Options | None = None,
    record: bool = False,
    store: str | None = None,
) -> Result:
    """Run a seed's world. `store`: "memory" or "lmdb"; by default what STORE_VARIABLE says in the environment."""
    if (store or os.environ.get(STORE_VARIABLE, "memory")) == "memory":
        return World(seed, plan, options=options, record=record).run()
    with tempfile.TemporaryDirectory(prefix="penstock-world-", dir=TMPFS if TMPFS.is_dir() else None) as folder:
        return World(seed, plan, options=options, record=record, folder=Path(folder)).run()


def seeded(rng: random.Random) -> random.Random:
    """A source of chance drawn from another."""
    return random.Random(rng.getrandbits(64))
