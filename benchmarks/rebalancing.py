"""What a rebalance costs those whom it does not concern, on a real cluster: one member joins a group, again and again.

    python -m benchmarks.rebalancing [--members 8] [--partitions 48] [--rate 960] [--rounds 5] [--seconds 4]

Each round: for --seconds nothing happens; a member of another group joins, which says what a new process on this
machine costs by itself, and leaves; one member more joins, and as long again is watched; it leaves. Printed is how many
partitions moved, how many others were interrupted (given up, lost or given anew), and the longest gap between two
deliveries of a partition: in the two controls, of partitions that stayed, and of those that moved. Members are
processes of their own, with the real consumer; a delivery counts when the line that tells of it arrives here.

That nothing is lost, and nothing ever has two owners, while members come, go, die and freeze each second, is judged by
`penstock-chaos run --scenario churn`.
"""

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from penstock.chaos.member.plan import MemberPlan
from penstock.chaos.workload.lives import Life, Nursery, Told
from penstock.client import Admin, Producer
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

TOPIC, GROUP, OTHER_GROUP = "shared", "readers", "strangers"
TICK_S = 0.02
SETTLE_PATIENCE_S = 60.0
POLL_S = 0.02


@dataclass(slots=True)
class Watch:
    """What members have told."""

    owners: dict[int, int] = field(default_factory=dict)
    """By partition: the number of the member."""
    granted: dict[int, int] = field(default_factory=dict)
    """By partition: the last generation in which it was given to somebody. What two members tell may cross."""
    changes: list[tuple[float, int, int]] = field(default_factory=list)
    """When, which partition, which member: given, given up or lost."""
    deliveries: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By partition."""

    def told(self, number: int, line: dict[str, Any]) -> None:
        """Take a line of a member."""
        now, f = time.monotonic(), line.get("f")
        if f == "poll":
            for read in line["reads"]:
                self.deliveries[read["partition"]].append(now)
        elif f in ("group_assigned", "group_released", "group_lost"):
            for _, partition, *given in line["partitions"]:
                self.changes.append((now, partition, number))
                if f == "group_assigned":
                    if given[0] > self.granted.get(partition, 0):
                        self.owners[partition], self.granted[partition] = number, given[0]
                elif self.owners.get(partition) == number:
                    del self.owners[partition]

    def gap(self, partition: int, start: float, end: float) -> float:
        """Give the longest time in [start, end] without a delivery, in ms."""
        times = [at for at in self.deliveries[partition] if start <= at <= end]
        return 1000 * max(after - before for before, after in pairwise([start, *times, end]))


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one member more. Gaps in ms."""

    moved: int
    interrupted: int
    quiet: list[float]
    another: list[float]
    """While a member of another group joined."""
    staying: list[float]
    moving: list[float]


class Trial:
    """One cluster, one group."""

    def __init__(self, arguments: argparse.Namespace, cluster: DevCluster, nursery: Nursery) -> None:
        self._arguments = arguments
        self._cluster = cluster
        self._nursery = nursery
        self._watch = Watch()
        self._born = 0

    async def run(self) -> list[Round]:
        """Let the group form, then do all rounds."""
        for _ in range(self._arguments.members):
            await self._join()
        await self._settled(self._arguments.members)
        return [await self._round() for _ in range(self._arguments.rounds)]

    async def _round(self) -> Round:
        watch, seconds = self._watch, self._arguments.seconds
        partitions = range(self._arguments.partitions)
        quiet_s = time.monotonic()
        await asyncio.sleep(seconds)
        another_s = time.monotonic()
        stranger = await self._birth(OTHER_GROUP, lambda _: None)
        await asyncio.sleep(seconds)
        another_end_s = time.monotonic()
        await _leaves(stranger)
        before, joined_s = dict(watch.owners), time.monotonic()
        number = self._born
        life = await self._join()
        await asyncio.sleep(seconds)
        end_s, after = time.monotonic(), dict(watch.owners)
        await self._settled(self._arguments.members + 1)
        moved = {partition for partition in partitions if before.get(partition) != after.get(partition)}
        touched = {partition for at, partition, _ in watch.changes if joined_s <= at <= end_s}
        if not all(after.get(partition) == number for partition in moved):
            print("moved to others than the newcomer:", sorted(p for p in moved if after.get(p) != number))
        staying = [watch.gap(partition, joined_s, end_s) for partition in partitions if partition not in moved]
        result = Round(
            len(moved),
            len(touched - moved),
            [watch.gap(partition, quiet_s, another_s) for partition in partitions],
            [watch.gap(partition, another_s, another_end_s) for partition in partitions],
            staying,
            [watch.gap(partition, joined_s, end_s) for partition in moved],
        )
        await _leaves(life)
        await self._settled(self._arguments.members)
        return result

    async def _join(self) -> Life:
        number, self._born = self._born, self._born + 1
        return await self._birth(GROUP, lambda line: self._watch.told(number, line))

    async def _birth(self, group: str, told: Told) -> Life:
        plan = MemberPlan(self._cluster.bootstrap, group, (TOPIC,), clock_zero=0.0, pace_s=0.0, most_records=1_000)
        return await self._nursery.birth(plan, told)

    async def _settled(self, members: int) -> None:
        """Wait until so many members share all partitions."""
        try:
            async with asyncio.timeout(SETTLE_PATIENCE_S):
                while not self._is_settled(members):  # noqa: ASYNC110  it is other processes' state
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise TimeoutError(f"{members} members do not share all partitions: {self._watch.owners}") from error

    def _is_settled(self, members: int) -> bool:
        owners = self._watch.owners
        return len(owners) == self._arguments.partitions and len(set(owners.values())) == members


async def _leaves(life: Life) -> None:
    life.leave()
    await life.ended()


async def _write(producer: Producer, partitions: int, rate: float) -> None:
    """Write a record to each partition in turn, at this rate in all, until cancelled."""
    due, last_s, at = 0.0, time.monotonic(), 0
    while True:
        await asyncio.sleep(TICK_S)
        now_s = time.monotonic()
        due, last_s = due + (now_s - last_s) * rate, now_s
        for _ in range(int(due)):
            producer.send_nowait(TOPIC, b"." * 100, partition=at % partitions)
            at += 1
        due -= int(due)


@asynccontextmanager
async def _load(cluster: DevCluster, partitions: int, rate: float) -> AsyncIterator[None]:
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic(TOPIC, partitions, 3)
    async with Producer(cluster.bootstrap, linger_ms=5) as producer:
        writing = asyncio.create_task(_write(producer, partitions, rate))
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def measure(arguments: argparse.Namespace, cluster: DevCluster) -> list[Round]:
    """Do it all."""
    async with _load(cluster, arguments.partitions, arguments.rate), Nursery() as nursery:
        return await Trial(arguments, cluster, nursery).run()


def _line(name: str, gaps: Iterable[float]) -> str:
    ordered = sorted(gaps)
    if not ordered:
        return f"{name:34} none"
    return f"{name:34} median {median(ordered):6.0f} ms   longest {ordered[-1]:6.0f} ms   of {len(ordered)}"


def report(arguments: argparse.Namespace, rounds: list[Round]) -> None:
    """Print the figures."""
    share = arguments.partitions / (arguments.members + 1)
    print(f"one more than {arguments.members} members over {arguments.partitions} partitions, {len(rounds)} times")
    print(f"moved: {', '.join(str(one.moved) for one in rounds)} (its fair share: {share:.1f})")
    print(f"interrupted though they stayed: {sum(one.interrupted for one in rounds)}")
    print("longest gap between deliveries of a partition:")
    print(_line("  nothing happens", (gap for one in rounds for gap in one.quiet)))
    print(_line("  another group's member joins", (gap for one in rounds for gap in one.another)))
    print(_line("  partitions that stay", (gap for one in rounds for gap in one.staying)))
    print(_line("  partitions that move", (gap for one in rounds for gap in one.moving)))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--partitions", type=int, default=48)
    parser.add_argument("--rate", type=float, default=960.0, help="records a second, in all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-rebalancing-") as folder:
        cluster = DevCluster.create(Path(folder) / "cluster", make_plan(free_ports(6)))
        try:
            cluster.start()
            cluster.wait_serving()
            report(arguments, asyncio.run(measure(arguments, cluster)))
        finally:
            for node_id in cluster.node_ids:
                cluster.kill(node_id)


if __name__ == "__main__":
    main()
