"""`make demo`: a three-node cluster loses the leader of a partition while records go in and out, and keeps them all.

Everything is real: three server processes, durable commits, SIGKILL. Exit code 1 if an acknowledged record is missing
or there twice. Leaves no process and no file behind, also when it is interrupted.
"""

import asyncio
import csv
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

from deploy.demo.ledger import Ledger
from penstock.client import (
    Admin,
    Consumer,
    Delivery,
    PenstockError,
    Producer,
    Record,
    TopicDescription,
    TopicPartition,
)
from penstock.client.devcluster import DevCluster, DevClusterError
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from penstock.protocol.reasons import Reason

NODES = 3
TOPIC = "orders"
PARTITIONS = 3
PAUSE_BETWEEN_ORDERS_S = 0.002
QUIET_TIME_S = 1.5
"""How long orders flow before the crash, and again after the partition is served."""
SERVED_AGAIN_TIMEOUT_S = 90.0
BACK_IN_SYNC_TIMEOUT_S = 90.0
DELIVERY_TIMEOUT_MS = 90_000
STOP_TIMEOUT_S = 3.0
POLL_S = 0.05
_BEGIN = time.monotonic()


def say(text: str) -> None:
    """Print a step with the time since the start."""
    print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", flush=True)


def orders() -> list[tuple[bytes, bytes]]:
    """Read the data set: key (the customer) and value (the whole line) of each order."""
    with (Path(__file__).parent / "orders.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [(row[0].encode(), ",".join(row).encode()) for row in rows]


class Publisher:
    """Publishes the orders, one after the other, over and over until stopped; each carries its number in a header."""

    def __init__(self, producer: Producer, ledger: Ledger) -> None:
        self._producer = producer
        self._ledger = ledger
        self._numbers = itertools.count()
        self.stopping = asyncio.Event()
        self._watched: tuple[int, float, asyncio.Future[float]] | None = None

    async def run(self) -> None:
        """Publish until `stopping` is set; then wait for all outcomes."""
        for key, value in itertools.cycle(orders()):
            if self.stopping.is_set():
                break
            await self._publish(key, value)
            await asyncio.sleep(PAUSE_BETWEEN_ORDERS_S)
        await self._producer.flush()

    async def _publish(self, key: bytes, value: bytes) -> None:
        number, sent_at = next(self._numbers), time.monotonic()

        def on_delivery(delivery: Delivery | None, error: PenstockError | None) -> None:
            if delivery is None:
                self._ledger.failed(number, cast("PenstockError", error))
                return
            self._ledger.acknowledged(number, delivery)
            self._notice(delivery.partition, sent_at)

        headers = [("number", str(number).encode())]
        self._producer.send_nowait(TOPIC, value, key=key, headers=headers, on_delivery=on_delivery)

    def _notice(self, partition: int, sent_at: float) -> None:
        if self._watched is None:
            return
        watched, moment, first = self._watched
        if partition == watched and sent_at > moment and not first.done():
            first.set_result(time.monotonic())

    async def first_acknowledged(self, partition: int, moment: float) -> float:
        """Wait for the first acknowledgement of an order of this partition that was sent after `moment`; its time."""
        first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._watched = (partition, moment, first)
        return await first


async def follow(consumer: Consumer, seen: list[Record]) -> None:
    """Read the topic from its beginning until cancelled."""
    await consumer.assign_topics([TOPIC], start="earliest")
    while True:
        seen.extend(await consumer.poll())


async def read_back(bootstrap: str) -> list[Record]:
    """Read everything from the first record to the present end with a consumer of its own."""
    records: list[Record] = []
    async with Consumer(bootstrap) as consumer:
        await consumer.assign_topics([TOPIC], start="earliest")
        ends = await consumer.end_offsets(consumer.assignment())
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            records.extend(await consumer.poll(10_000, 1.0))
    return records


async def create(admin: Admin) -> TopicDescription:
    """Create the topic as soon as enough nodes live: on a busy machine one may be silent for a moment."""
    while True:
        try:
            return await admin.create_topic(TOPIC, partitions=PARTITIONS, replication_factor=NODES)
        except PenstockError as error:
            if error.reason is not Reason.INVALID_REPLICATION_FACTOR:
                raise
        await asyncio.sleep(POLL_S)


async def leader_of_first(admin: Admin) -> int:
    """Leader of partition 0, as soon as there is one."""
    while True:
        leader = (await admin.describe_topic(TOPIC)).partitions[0].leader
        if leader is not None:
            return leader
        await asyncio.sleep(POLL_S)


async def crash(cluster: DevCluster, admin: Admin, publisher: Publisher) -> int:
    """Kill the leader of partition 0 and wait until the partition is served again; the node that was killed."""
    victim, description = await leader_of_first(admin), await admin.describe_cluster()
    role = ", the cluster's controller too" if victim == description.controller else ""
    say(f"kill -9 of node {victim}, leader of partition 0{role}; publishing and consuming go on")
    killed_at = time.monotonic()
    await asyncio.to_thread(cluster.kill, victim)
    gone_at = time.monotonic()  # nothing sent from here on can have reached the old leader
    async with asyncio.timeout(SERVED_AGAIN_TIMEOUT_S):
        gap = await publisher.first_acknowledged(0, gone_at) - killed_at
    leader = await leader_of_first(admin)
    say(f"partition 0 was not served for {gap:.2f} s; node {leader} leads it now")
    return victim


async def come_back(cluster: DevCluster, admin: Admin, victim: int) -> None:
    """Start the killed node again and wait until it is in sync everywhere."""
    begin = time.monotonic()
    await asyncio.to_thread(cluster.start, [victim])
    async with asyncio.timeout(BACK_IN_SYNC_TIMEOUT_S):
        while True:
            topic = await admin.describe_topic(TOPIC)
            if all(len(partition.isr) == NODES for partition in topic.partitions):
                break
            await asyncio.sleep(POLL_S)
    say(f"node {victim} is started again: in sync in all partitions after {time.monotonic() - begin:.1f} s")


async def story(cluster: DevCluster) -> bool:
    """Play the whole demo; whether every acknowledged record was read back once."""
    ledger, seen = Ledger(), list[Record]()
    async with (
        Admin(cluster.bootstrap) as admin,
        Producer(cluster.bootstrap, delivery_timeout_ms=DELIVERY_TIMEOUT_MS) as producer,
        Consumer(cluster.bootstrap) as consumer,
    ):
        async with asyncio.timeout(SERVED_AGAIN_TIMEOUT_S):
            topic = await create(admin)
        held = topic.config.min_insync_replicas
        say(
            f"topic {TOPIC}: {PARTITIONS} partitions, {NODES} replicas; what is acknowledged is on {held} disks or more"
        )
        publisher = Publisher(producer, ledger)
        publishing = asyncio.create_task(publisher.run())
        following = asyncio.create_task(follow(consumer, seen))
        try:
            await asyncio.sleep(QUIET_TIME_S)
            say(f"{len(ledger.places):,} orders acknowledged, {len(seen):,} consumed so far, as they come in")
            for record in seen[:2]:
                say(f"    {record.topic}/{record.partition}@{record.offset}  {(record.value or b'').decode()}")
            victim = await crash(cluster, admin, publisher)
            await asyncio.sleep(QUIET_TIME_S)
            await come_back(cluster, admin, victim)
            publisher.stopping.set()
            await publishing
            say(f"publishing ends: {ledger.summary()}")
            await _caught_up(consumer, following)
        finally:
            publishing.cancel()
            following.cancel()
            await asyncio.wait([publishing, following])
    return _verdict(ledger, seen, await read_back(cluster.bootstrap))


async def _caught_up(consumer: Consumer, following: "asyncio.Task[None]") -> None:
    ends = await consumer.end_offsets([TopicPartition(TOPIC, index) for index in range(PARTITIONS)])
    async with asyncio.timeout(SERVED_AGAIN_TIMEOUT_S):
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            if following.done():
                await following  # raises what ended it
            await asyncio.sleep(0.02)


def _verdict(ledger: Ledger, seen: list[Record], everything: list[Record]) -> bool:
    problems = [*ledger.problems(seen, "followed"), *ledger.problems(everything, "read back")]
    for problem in problems[:10]:
        say(f"WRONG: {problem}")
    count = len(ledger.places)
    good = count - len(ledger.missing(everything))
    order = "none missing, none twice, each customer's in order" if not problems else f"{len(problems)} problems"
    print(f"{good:,} of {count:,} acknowledged records were read back: {order}", flush=True)
    return not problems and count > 0


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> None:
    """End the demo, once: a second Ctrl-C must not leave nodes behind."""
    del number, frame
    _ignore_signals()
    raise KeyboardInterrupt


def main() -> int:
    """Run it; the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    home = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    cluster = DevCluster.create(home, make_plan(free_ports(2 * NODES)))
    keep = False
    try:
        say(f"starting {NODES} nodes on this machine, each with its own disk folder")
        cluster.start()
        cluster.wait_serving()
        say(f"the cluster serves at {cluster.bootstrap}")
        good = asyncio.run(story(cluster))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (DevClusterError, PenstockError, TimeoutError) as error:
        keep = True
        say(f"the demo failed: {type(error).__name__}: {error}")
        say(f"the nodes' logs are kept in {home}")
        return 1
    finally:
        _ignore_signals()
        cluster.stop(timeout_s=STOP_TIMEOUT_S)
        if not keep:
            shutil.rmtree(home)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
