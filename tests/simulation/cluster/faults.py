"""Performs a plan's actions on a world. What the guarantee does not cover at that moment is not done."""

import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.raft.errors import SubmitRefused
from tests.simulation.cluster.machine import Machine
from tests.simulation.cluster.plan import Action

if TYPE_CHECKING:
    from tests.simulation.cluster.world import World


class Faults:
    """One method a kind. `value` is the action's number from 0 to 1."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def perform(self, action: Action) -> None:
        """Do it, if it can be done."""
        machine = self._target(action)
        if machine is None:
            return
        self._world.trace("fault", action.kind, machine.node_id)
        kind: Callable[[Machine, float], None] = getattr(self, f"_{action.kind}")
        kind(machine, action.value)

    def _target(self, action: Action) -> Machine | None:
        world = self._world
        if action.who == "controller":
            return world.controller()
        if action.who == "leader":
            keys = sorted(world.checks.partitions())
            return world.leader_of(keys[int(action.value * len(keys)) % len(keys)]) if keys else None
        if action.who == "coordinator":
            key = None if world.checks.group is None else world.checks.group.place()
            return None if key is None else world.leader_of(key)
        return world.machines.get(action.node)

    def _rng(self, value: float) -> random.Random:
        """Chance of the action's own, so that leaving another action out changes nothing here."""
        return random.Random(f"{self._world.seed} {value}")

    # ---- processes and power

    def _lose(self, machine: Machine, *, silently: bool) -> None:
        if self._world.checks.may_end(machine):
            self._world.lose(machine, silently=silently)

    def _may_arm(self, machine: Machine) -> bool:
        """Whether a commit may end the process, whenever that is."""
        return machine.is_up and self._world.options.durability == "commit"

    def _crash(self, machine: Machine, _: float) -> None:
        self._lose(machine, silently=False)

    def _power(self, machine: Machine, _: float) -> None:
        self._lose(machine, silently=True)

    def _power_in_commit(self, machine: Machine, value: float) -> None:
        if self._may_arm(machine):
            machine.disk.arm_power_loss(durable=value < 0.5, after=int(value * 8) % 4)

    def _power_in_journal(self, machine: Machine, value: float) -> None:
        if self._may_arm(machine):
            machine.journal_disk.armed = (int(value * 6) % 3, value < 0.5)

    def _bounce(self, machine: Machine, value: float) -> None:
        """Killed, and back within its session or soon after."""
        self._lose(machine, silently=value < 0.2)
        self._world.scheduler.after(0.02 + 1.2 * value, self._world.start, machine)

    def _stop(self, machine: Machine, value: float) -> None:
        """SIGTERM; started again later, sometimes after a loss of power, which takes nothing from a clean stop."""
        process, broker = machine.process, machine.broker
        if process is None or broker is None or not (broker.is_clean or self._world.checks.may_end(machine)):
            return
        process.loop.run(broker.stop)
        self._world.scheduler.after(1.0 + 4.0 * value, self._restart, machine, value)

    def _restart(self, machine: Machine, value: float) -> None:
        if not machine.is_up and value < 0.5:
            machine.disk.power_loss(self._rng(value))
        self._world.start(machine)

    def _crash_all(self, _: Machine, value: float) -> None:
        for machine in self._world.machines.values():
            self._lose(machine, silently=False)
            self._world.scheduler.after(0.05 + value * machine.node_id, self._world.start, machine)

    def _power_all(self, _: Machine, value: float) -> None:
        for machine in self._world.machines.values():
            self._lose(machine, silently=True)
            self._world.scheduler.after(0.05 + value * machine.node_id, self._world.start, machine)

    def _start(self, _: Machine, value: float) -> None:
        for machine in self._world.machines.values():
            self._world.start(machine)

    def _absence(self, machine: Machine, value: float) -> None:
        """One alone is away for long, while the others go on, compact, and drop what it never saw."""
        others = [other for other in self._world.machines.values() if other is not machine]
        if machine.is_up and all(other.is_up for other in others):
            self._lose(machine, silently=value < 0.5)
            machine.is_out = not machine.is_up
            self._world.scheduler.after(1.5 + 3.0 * value, self._come_back, machine)

    def _come_back(self, machine: Machine) -> None:
        if not self._world.is_healed:  # else it may be out for another reason
            machine.is_out = False
            self._world.start(machine)

    def _pause(self, machine: Machine, value: float) -> None:
        if machine.process is not None:
            machine.process.loop.pause(self._world.scheduler.now + 3.0 * value)

    def _clock_jump(self, machine: Machine, value: float) -> None:
        skew = self._world.time.skew_s
        skew[machine.host] = machine.clock_skew + (value - 0.5) * 7_000

    # ---- disks

    def _wipe(self, machine: Machine, value: float) -> None:
        if self._world.checks.may_lose_disk(machine):
            self._world.lose(machine, silently=True)
            machine.wipe(journal=value < 0.4)
            self._world.scheduler.after(0.1 + 2.0 * value, self._world.start, machine)

    def _copy(self, machine: Machine, _: float) -> None:
        machine.take_copy()

    def _restore(self, machine: Machine, value: float) -> None:
        if machine.has_old_copy and self._world.checks.may_lose_disk(machine):
            self._world.lose(machine, silently=True)
            machine.restore()
            self._world.scheduler.after(0.1 + 2.0 * value, self._world.start, machine)

    def _rollback(self, machine: Machine, value: float) -> None:
        """A copy is taken, the node starts again and is in sync again, and then the copy is put back."""
        machine.take_copy()
        self._bounce(machine, 0.2)
        self._world.scheduler.after(1.0 + 2.0 * value, self._roll_back, machine, value)

    def _roll_back(self, machine: Machine, value: float) -> None:
        if not self._world.is_healed:
            self._restore(machine, value)

    def _fail_commit(self, machine: Machine, value: float) -> None:
        if self._may_arm(machine):
            machine.disk.arm_failure(durable=value < 0.5)

    def _full(self, machine: Machine, value: float) -> None:
        """One disk is full for a while, or all of them."""
        for one in self._world.machines.values() if value > 0.7 else [machine]:
            one.disk.full = True
            self._world.scheduler.after(0.3 + 2.0 * value, self._emptied, one)

    def _emptied(self, machine: Machine) -> None:
        machine.disk.full = False

    def _slow_disk(self, machine: Machine, value: float) -> None:
        machine.slow_disk_until = self._world.scheduler.now + 4.0 * value

    # ---- network

    def _cut(self, machine: Machine, value: float) -> None:
        peer = self._peer(machine, value)
        for one, other in ((machine.host, peer), (peer, machine.host)):
            self._world.network.cut(one, other, reset=value < 0.3)

    def _cut_one_way(self, machine: Machine, value: float) -> None:
        peer = self._peer(machine, value)
        self._world.network.cut(*((machine.host, peer) if value < 0.5 else (peer, machine.host)))

    def _isolate(self, machine: Machine, value: float) -> None:
        for peer in self._hosts(machine, clients=value < 0.5):
            self._world.network.cut(machine.host, peer)
            self._world.network.cut(peer, machine.host)

    def _isolate_one_way(self, machine: Machine, value: float) -> None:
        for peer in self._hosts(machine, clients=value < 0.25):
            self._world.network.cut(*((machine.host, peer) if value < 0.5 else (peer, machine.host)))

    def _ring(self, _: Machine, value: float) -> None:
        """Each reaches the next one only."""
        hosts = [machine.host for machine in self._world.machines.values()]
        for place, host in enumerate(hosts):
            for other in hosts:
                if other not in (host, hosts[(place + 1) % len(hosts)]):
                    self._world.network.cut(host, other)

    def _reset(self, machine: Machine, value: float) -> None:
        """The connections to a peer end, and may be made again at once."""
        peer = self._peer(machine, value)
        self._world.network.cut(machine.host, peer, reset=True)
        self._world.network.heal(machine.host, peer)

    def _cut_clients(self, machine: Machine, value: float) -> None:
        for client in self._world.workload.hosts():
            self._world.network.cut(machine.host, client, reset=value < 0.3)
            if value < 0.7:
                self._world.network.cut(client, machine.host)

    def _crash_client(self, _: Machine, value: float) -> None:
        self._world.workload.crash_client(value)

    def _member_leave(self, _: Machine, value: float) -> None:
        self._world.workload.member(value).go(10 * value % 1)

    def _member_crash(self, _: Machine, value: float) -> None:
        self._world.workload.member(value).crash_and_restart(0.05 + 2.0 * (10 * value % 1))

    def _member_pause(self, _: Machine, value: float) -> None:
        """Stopped, often for longer than its session."""
        self._world.workload.member(value).loop.pause(self._world.scheduler.now + 4.0 * (10 * value % 1))

    def _member_stall(self, _: Machine, value: float) -> None:
        """Busy with what it was given, sometimes for longer than it may be."""
        self._world.workload.member(value).stall_s = 4.0 * (10 * value % 1)

    def _member_cut(self, _: Machine, value: float) -> None:
        """From all nodes, or in one direction."""
        member, way = self._world.workload.member(value).site.host, 10 * value % 1
        for machine in self._world.machines.values():
            if way < 0.7:
                self._world.network.cut(machine.host, member, reset=way < 0.2)
            if way > 0.3:
                self._world.network.cut(member, machine.host)

    def _commit_under_way(self, coordinator: Machine, value: float) -> None:
        """A member dies while its commits wait for a replica that is cut off, and still counts as in sync."""
        world = self._world
        key = None if world.checks.group is None else world.checks.group.place()
        info = None if key is None else world.checks.partition(key)
        others = [] if info is None else [node_id for node_id in info.isr if node_id != coordinator.node_id]
        if others:
            follower = world.machines[others[0]].host
            world.network.cut(coordinator.host, follower)
            world.network.cut(follower, coordinator.host)
            world.scheduler.after(0.1 + 0.5 * (10 * value % 1), self._crash_member, value)

    def _crash_member(self, value: float) -> None:
        if not self._world.is_healed:
            self._world.workload.member(value).crash_and_restart(3.0)

    def _heal(self, _: Machine, value: float) -> None:
        self._world.network.heal_all()
        self._world.network.slow.clear()

    def _slow(self, machine: Machine, _: float) -> None:
        self._world.network.slow.add(machine.host)

    def _peer(self, machine: Machine, value: float) -> str:
        others = self._hosts(machine, clients=False)
        return others[int(value * 1000) % len(others)]

    def _hosts(self, machine: Machine, *, clients: bool) -> list[str]:
        others = [other.host for other in self._world.machines.values() if other is not machine]
        return others + (list(self._world.workload.hosts()) if clients else [])

    # ---- what operators and time do

    def _transfer(self, _: Machine, value: float) -> None:
        """Consensus leadership is handed over."""
        leader = self._world.controller()
        if leader is None or leader.process is None or leader.broker is None:
            return
        raft = leader.broker.raft

        async def hand_over() -> None:
            with contextlib.suppress(SubmitRefused, TimeoutError):
                await raft.transfer_leadership()

        loop = leader.process.loop
        loop.run(lambda: loop.create_task(hand_over()))

    def _recreate_topic(self, _: Machine, value: float) -> None:
        self._world.workload.recreate_topic(value)

    def _min_isr(self, _: Machine, value: float) -> None:
        self._world.workload.alter_min_isr(value)

    def _add_partitions(self, _: Machine, value: float) -> None:
        self._world.workload.add_partitions(value)

    def _trim(self, _: Machine, value: float) -> None:
        self._world.workload.trim(value)

    def _alter_cleanup(self, _: Machine, value: float) -> None:
        self._world.workload.alter_cleanup(value)

    def _reassign(self, machine: Machine, value: float) -> None:
        self._world.workload.reassign(value)

    # ---- the end

    def heal(self) -> None:
        """Everything works again."""
        world = self._world
        world.network.heal_all()
        world.network.slow.clear()
        world.network.weather.slow_share = 0.0
        for machine in world.machines.values():
            machine.disk.disarm()
            machine.disk.full = False
            machine.journal_disk.armed = None
            machine.slow_disk_until = 0.0
            machine.is_out = False
            if machine.process is not None:
                machine.process.loop.paused_until = 0.0
            world.start(machine)
        for member in world.workload.members:
            member.loop.paused_until = member.stall_s = 0.0
