"""What consumer groups cost, on a real cluster of three nodes on this machine.

    python -m benchmarks.groups commits [--rate 5000] [--size 10] [--groups 50] [--seconds 20] [--unary]
    python -m benchmarks.groups heartbeats [--groups 1000] [--members 3] [--interval 3] [--seconds 30]

`commits`: an open loop of requests of `size` offsets, by members on their Join streams or by unary calls; the latency
until they are durable on every in-sync replica, the rate reached, and the processor time of the nodes. `heartbeats`:
members that do nothing but live; the processor time of all nodes together, beside what the idle cluster takes.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.procfs import usage
from penstock.client.bench.histogram import Histogram
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from penstock.protocol.calls import from_call
from penstock.protocol.errors import from_status
from penstock.protocol.reasons import Outcome
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc as services
from penstock.v1 import topic_service_pb2, topic_service_pb2_grpc

NODES = 3
STREAMS_PER_CHANNEL = 500
IDLE_S = 10.0
JOINING = 100
"""Members that join at a time."""
CALM = {"session_timeout_ms": 10_000, "replica_lag_max_ms": 10_000}
"""So that no coordinator moves because the machine is busy: members here do not join again."""
SESSION_S = 120
"""For the same reason; what a heartbeat costs does not depend on it."""
OWN_CHANNEL = ("grpc.use_local_subchannel_pool", 1)


class Cluster:
    """The nodes, and channels to them, as many as their streams need."""

    def __init__(self, cluster: DevCluster) -> None:
        self._cluster = cluster
        self._addresses = {node.node_id: node.client for node in cluster.plan.nodes}
        self._channels: dict[int, list[tuple[grpc.aio.Channel, list[None]]]] = {}
        self.first = next(iter(self._addresses))

    def channel(self, node_id: int) -> grpc.aio.Channel:
        """A channel with room for one more stream."""
        channels = self._channels.setdefault(node_id, [])
        if not channels or len(channels[-1][1]) >= STREAMS_PER_CHANNEL:
            channels.append((grpc.aio.insecure_channel(self._addresses[node_id], [OWN_CHANNEL]), []))
        channel, used = channels[-1]
        used.append(None)
        return channel

    async def close(self) -> None:
        """Close all channels."""
        for channels in self._channels.values():
            for channel, _ in channels:
                await channel.close()

    def cpu_s(self) -> float:
        """Processor time of all nodes until now."""
        processes = [self._cluster.process(node_id) for node_id in self._cluster.node_ids]
        return sum(usage(process.pid).cpu_s for process in processes if process is not None)

    async def topic(self, name: str, partitions: int) -> topic_service_pb2.Topic:
        """Make a topic."""
        stub = topic_service_pb2_grpc.TopicServiceStub(self.channel(self.first))
        request = topic_service_pb2.CreateTopicRequest(name=name, partitions=partitions, request_id=name)
        return (await persistently(lambda: stub.CreateTopic(request, timeout=30))).topic  # type: ignore[no-any-return]

    async def coordinator(self, group_id: str) -> int:
        """Where a group is coordinated."""
        stub = services.GroupServiceStub(self.channel(self.first))
        request = pb.FindCoordinatorRequest(group_id=group_id)
        return int((await persistently(lambda: stub.FindCoordinator(request, timeout=30))).node_id)


async def persistently(call: Callable[[], Any]) -> Any:
    """Repeat what goes by."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if from_call(error).outcome is Outcome.DEFINITE:
                raise
        await asyncio.sleep(0.1)


class Member:
    """One member on its Join stream."""

    def __init__(self, stream: Any, topics: Sequence[str], group_id: str, member_id: str) -> None:
        self._stream = stream
        self._start = pb.JoinStart(group_id=group_id, member_id=member_id)
        self._start.subscription.topics.extend(topics)
        self._start.session_timeout.FromSeconds(SESSION_S)
        self.group_id = group_id
        self.generation = 0
        self.partitions: list[pb.AssignedPartition] = []
        self.assigned = asyncio.Event()
        self.waiting: dict[int, asyncio.Future[pb.MemberCommitResult]] = {}
        self._sequence = 0
        self._writing = asyncio.Lock()

    async def _write(self, **request: Any) -> None:
        """One at a time: gRPC takes no two."""
        async with self._writing:
            await self._stream.write(pb.JoinRequest(**request))

    async def run(self) -> None:
        """Join and take what comes."""
        await self._write(start=self._start)
        while (response := await self._stream.read()) is not grpc.aio.EOF:
            kind = response.WhichOneof("response")
            if kind == "commit_result":
                self.waiting.pop(response.commit_result.sequence).set_result(response.commit_result)
            elif kind == "assignment":
                await self._assign(response.assignment)

    async def _assign(self, assignment: pb.Assignment) -> None:
        self.generation, self.partitions = assignment.generation, list(assignment.partitions)
        if assignment.revoked:
            release = pb.ReleasePartitions(generation=assignment.generation, partitions=assignment.revoked)
            await self._write(release=release)
        if self.partitions:
            self.assigned.set()

    async def beat(self, polls: int) -> None:
        """One heartbeat."""
        await self._write(heartbeat=pb.MemberHeartbeat(sequence=polls, polls=polls))

    async def commit(self, size: int) -> None:
        """Commit the offset 0 of `size` partitions."""
        self._sequence += 1
        commit = pb.MemberCommit(generation=self.generation, sequence=self._sequence)
        for partition in self.partitions[:size]:
            commit.offsets.add(topic_id=partition.topic_id, partition=partition.partition)
        answer = self.waiting[self._sequence] = asyncio.get_running_loop().create_future()
        await self._write(commit=commit)
        check((await answer).results)


def check(results: Sequence[pb.OffsetCommitResult]) -> None:
    """Raise what was refused."""
    for result in results:
        if result.HasField("error"):
            raise from_status(result.error)


async def commits(arguments: argparse.Namespace, cluster: Cluster) -> None:
    """See the module."""
    topic = await cluster.topic("committed", arguments.size)
    groups = [f"group-{number}" for number in range(arguments.groups)]
    tasks: list[asyncio.Task[None]] = []
    if arguments.unary:
        commit = [await _unary(cluster, group_id, topic, arguments.size) for group_id in groups]
    else:
        members = [await _member(cluster, group_id, topic.name, "m") for group_id in groups]
        tasks = [asyncio.create_task(member.run()) for member in members]
        await asyncio.gather(*(member.assigned.wait() for member in members))
        tasks += [asyncio.create_task(_beats(member, 3.0)) for member in members]
        commit = [_of_member(member, arguments.size) for member in members]
    began_cpu, began = cluster.cpu_s(), time.perf_counter()
    histogram, refused = await _open_loop(commit, arguments.rate / arguments.size, arguments.seconds)
    took, cpu = time.perf_counter() - began, cluster.cpu_s() - began_cpu
    done = histogram.count * arguments.size / took
    shown = ", ".join(f"p{share:g} {histogram.percentile(share):.1f} ms" for share in (50, 99, 99.9))
    print(f"{done:.0f} offsets/s durable of {arguments.rate} asked for, {refused} requests failed; {shown}")
    print(f"nodes {cpu / took:.2f} cores")
    await _end(tasks)


async def _unary(cluster: Cluster, group_id: str, topic: topic_service_pb2.Topic, size: int) -> Callable[[], Any]:
    stub = services.GroupServiceStub(cluster.channel(await cluster.coordinator(group_id)))
    offsets = [pb.OffsetCommit(topic_id=topic.topic_id, partition=partition) for partition in range(size)]
    request = pb.CommitOffsetsRequest(group_id=group_id, offsets=offsets)

    async def commit() -> None:
        check((await stub.CommitOffsets(request, timeout=30)).results)

    await persistently(commit)
    return commit


def _of_member(member: Member, size: int) -> Callable[[], Any]:
    return lambda: member.commit(size)


async def _member(cluster: Cluster, group_id: str, topic: str, member_id: str) -> Member:
    node_id = await cluster.coordinator(group_id)
    return Member(services.GroupServiceStub(cluster.channel(node_id)).Join(), [topic], group_id, member_id)


async def _open_loop(commit: Sequence[Callable[[], Any]], rate: float, seconds: float) -> tuple[Histogram, int]:
    """Begin a commit of the next group at a steady rate, whatever became of those before. Also: how many failed."""
    histogram, refused = Histogram(), 0
    loop = asyncio.get_running_loop()
    waiting: set[asyncio.Task[None]] = set()

    async def one(call: Callable[[], Any], due: float) -> None:
        nonlocal refused
        try:
            await call()
        except grpc.aio.AioRpcError:
            refused += 1
            return
        histogram.record(int((time.perf_counter() - due) * 1e6))

    began, number = time.perf_counter(), 0
    while (due := began + number / rate) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = loop.create_task(one(commit[number % len(commit)], due))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        number += 1
    await asyncio.gather(*waiting)
    return histogram, refused


async def _beats(member: Member, interval: float) -> None:
    polls = 0
    while True:
        await asyncio.sleep(interval)
        polls += 1
        await member.beat(polls)


async def heartbeats(arguments: argparse.Namespace, cluster: Cluster) -> None:
    """See the module."""
    await cluster.coordinator("first")
    await asyncio.sleep(IDLE_S)
    idle = await _cores(cluster, IDLE_S)
    topic = await cluster.topic("shared", arguments.members)
    members: list[Member] = []
    tasks: list[asyncio.Task[None]] = []
    began = time.perf_counter()
    for group in range(arguments.groups):
        for name in range(arguments.members):
            member = await _member(cluster, f"group-{group}", topic.name, f"m{name}")
            members.append(member)
            tasks.append(asyncio.create_task(member.run()))
            tasks.append(asyncio.create_task(_beats(member, arguments.interval)))
        if len(members) % JOINING < arguments.members:
            await _all_assigned(members, tasks)
    await _all_assigned(members, tasks)
    joined = time.perf_counter() - began
    await asyncio.sleep(arguments.interval)
    busy = await _cores(cluster, arguments.seconds)
    alive = sum(not task.done() for task in tasks) // 2
    print(f"{len(members)} members joined in {joined:.1f} s, {alive} live, a heartbeat each {arguments.interval:g} s")
    print(f"nodes {busy:.3f} cores in all, idle before {idle:.3f}")
    await _end(tasks)


async def _all_assigned(members: Sequence[Member], tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for their partitions. Raises what ended a stream."""
    waiting = asyncio.gather(*(member.assigned.wait() for member in members))
    watched: list[asyncio.Future[Any]] = [waiting, *tasks]
    await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await _end(tasks)
            raise RuntimeError(f"a member's stream has ended: {task.exception()}")
    await waiting


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _cores(cluster: Cluster, seconds: float) -> float:
    before, began = cluster.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (cluster.cpu_s() - before) / (time.perf_counter() - began)


async def run(arguments: argparse.Namespace, nodes: DevCluster) -> None:
    """One of them."""
    cluster = Cluster(nodes)
    try:
        await {"commits": commits, "heartbeats": heartbeats}[arguments.what](arguments, cluster)
    finally:
        await cluster.close()


def main(arguments: argparse.Namespace) -> None:
    """Start a cluster, run, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-groups-", dir=arguments.folder))
    nodes = DevCluster.create(folder, make_plan(free_ports(2 * NODES), limits=CALM))
    try:
        nodes.start()
        nodes.wait_serving()
        asyncio.run(run(arguments, nodes))
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("commits", "heartbeats"))
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--groups", type=int, default=0)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--interval", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--unary", action="store_true")
    asked = parser.parse_args()
    asked.groups = asked.groups or {"commits": 50, "heartbeats": 1_000}[asked.what]
    main(asked)
