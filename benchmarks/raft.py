"""Measure consensus alone: three processes on loopback, real journals with fsync.

`python benchmarks/raft.py` prints latency and throughput from the leader and from a follower, and how long after
SIGKILL of the leader the first command commits. Commands have 100 bytes.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc.aio

from penstock.internal.v1 import raft_pb2_grpc
from penstock.raft.cluster import RaftConfig, RaftNode
from penstock.raft.errors import OutcomeUnknown, SubmitRefused
from penstock.raft.journal import RaftJournal

COMMAND = b"x" * 100
IN_FLIGHT = 1000
SECONDS = 4.0
FAILOVERS = 10


class Counter:
    """The cheapest state machine."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, _index: int, _command: bytes) -> bytes:
        """Count."""
        self.count += 1
        return b""

    def snapshot(self) -> bytes:
        """Return the count."""
        return b"%d" % self.count

    def restore(self, _index: int, data: bytes) -> None:
        """Take the count."""
        self.count = int(data)


async def latency(node: RaftNode) -> dict[str, float]:
    """Submit one after the other."""
    times = []
    for _ in range(300):
        began = time.perf_counter()
        await node.submit(COMMAND, 10)
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return {"p50_ms": round(times[150], 2), "p99_ms": round(times[297], 2)}


async def throughput(node: RaftNode) -> dict[str, float]:
    """Keep IN_FLIGHT commands on their way."""
    done, end = 0, time.perf_counter() + SECONDS

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await node.submit(COMMAND, 10)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    return {"commands_s": round(done / (time.perf_counter() - began))}


async def first_commit(node: RaftNode) -> dict[str, float]:
    """Submit until a command is applied; when that was, on the system's clock."""
    while True:
        with contextlib.suppress(SubmitRefused, OutcomeUnknown):
            await node.submit(COMMAND, 0.5)
            return {"at": time.time()}


async def serve(node_id: int, root: Path, voters: dict[int, str]) -> None:
    """Be a node: do what comes on stdin, a word a line, and answer with a line of JSON."""
    path = root / str(node_id)
    if not path.exists():
        RaftJournal.format(path / "raft", "bench", node_id, founding=True)
    node = RaftNode(RaftConfig(node_id, path, voters), Counter())
    server = grpc.aio.server()
    raft_pb2_grpc.add_RaftServiceServicer_to_server(node.servicer(), server)
    server.add_insecure_port(voters[node_id])
    await node.start()
    await server.start()
    actions = {"latency": latency, "throughput": throughput, "first_commit": first_commit}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        answer: Any = {"leader": node.leader} if line == "leader" else await actions[line](node)
        print(json.dumps(answer), flush=True)
    await node.stop()
    await server.stop(None)


class Process:
    """A node's process."""

    def __init__(self, node_id: int, root: Path, voters: dict[int, str]) -> None:
        arguments = [sys.executable, __file__, str(node_id), str(root), json.dumps(voters)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  ourselves

    def tell(self, word: str) -> None:
        """Send a word."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for the answer."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def ask(self, word: str) -> dict[str, Any]:
        """Send a word and wait for the answer."""
        self.tell(word)
        return self.hear()


def leader_of(processes: dict[int, Process]) -> int:
    """Wait until all agree on a leader."""
    while True:
        leaders = {process.ask("leader")["leader"] for process in processes.values()}
        if len(leaders) == 1 and (leader := leaders.pop()) is not None:
            return int(leader)
        time.sleep(0.05)


def measure(root: Path) -> None:
    """Run all measurements and print them."""
    sockets = [socket.socket() for _ in range(3)]
    for place in sockets:
        place.bind(("127.0.0.1", 0))
    voters = {n: f"127.0.0.1:{place.getsockname()[1]}" for n, place in enumerate(sockets, 1)}
    for place in sockets:
        place.close()
    processes = {n: Process(n, root, voters) for n in voters}
    try:
        leader = leader_of(processes)
        follower = next(n for n in voters if n != leader)
        for word in ("latency", "throughput"):
            for name, node_id in (("leader", leader), ("follower", follower)):
                print(name, word, processes[node_id].ask(word), flush=True)
        waits = sorted(failover(root, processes, voters) for _ in range(FAILOVERS))
        print(f"failover to the first commit: p50 {waits[FAILOVERS // 2]:.2f} s, worst {waits[-1]:.2f} s")
    finally:
        for process in processes.values():
            process.process.kill()
            process.process.wait()


def failover(root: Path, processes: dict[int, Process], voters: dict[int, str]) -> float:
    """Kill the leader; the seconds until a survivor has a command applied. The dead one is started again."""
    leader = leader_of(processes)
    time.sleep(0.5 + os.getpid() % 7 / 50)
    others = [process for node_id, process in processes.items() if node_id != leader]
    began = time.time()
    processes[leader].process.send_signal(signal.SIGKILL)
    for process in others:
        process.tell("first_commit")
    ended = min(process.hear()["at"] for process in others)
    processes[leader].process.wait()
    processes[leader] = Process(leader, root, voters)
    return float(ended - began)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        addresses = {int(n): address for n, address in json.loads(sys.argv[3]).items()}
        asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), addresses))
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))
