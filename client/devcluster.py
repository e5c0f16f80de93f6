"""A cluster of penstockd processes on this machine: what `penstock dev`, the demo, the tests and the chaos suite run.

Owns a folder: `cluster.json` (the plan), and `node-N/` with `node.toml`, `data/`, `node.log` and `process.json`. Nodes
are processes in sessions of their own, so they outlive the program that starts them; they are found again by pid and
start time. Everything here blocks, with named limits. Never touches a process or a file that it did not make.
"""

import fcntl
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import grpc

from penstock.client.devplan import ClusterPlan, NodePlan, node_config
from penstock.client.ports import port_in_use
from penstock.client.processes import DetachedProcess

PENSTOCKD = (sys.executable, "-P", "-m", "penstock.node.main")
"""The server, run by this Python (-P: nothing from the working directory)."""
START_TIMEOUT_S = 120.0
"""A node that cannot serve ends at once; one that takes long has a busy machine."""
STOP_TIMEOUT_S = 10.0
"""How long a node may take to end by itself before it is killed."""
GONE_TIMEOUT_S = 60.0
"""How long a killed node may take to be gone: a thread that waits for its disk ends no sooner than that answers."""
POLL_S = 0.05
PORT_WAIT_S = 1.0
FORMAT_TIMEOUT_S = 120.0
LOG_TAIL_LINES = 15
START_MARK = "-- start --"
"""Line of the log before each start of the node."""
LOG_MAX_BYTES = 32 * 1024 * 1024
"""A larger log is set aside as node.log.1 at the next start."""
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
"""HealthCheckResponse{status: SERVING} on the wire, so that no health package is needed here."""


class DevClusterError(Exception):
    """The cluster cannot do what was asked; the message says why and what to do."""


class NodeState(StrEnum):
    """What one node is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    """Runs, but does not serve (yet)."""
    SERVING = "serving"


class DevCluster:
    """The nodes of one folder. Not for use from several threads; several programs are kept apart by `locked`."""

    def __init__(self, home: Path, plan: ClusterPlan, program: Sequence[str] = PENSTOCKD) -> None:
        self.home = home
        self.plan = plan
        self.program = program

    @classmethod
    def create(cls, home: Path, plan: ClusterPlan, program: Sequence[str] = PENSTOCKD) -> Self:
        """Make the folder of a new cluster; `start` then formats the nodes. Raises DevClusterError if there is one."""
        home.mkdir(parents=True, exist_ok=True)
        if (home / "cluster.json").exists():
            raise DevClusterError(f"there is a cluster in {home} already")
        cluster = cls(home, plan, program)
        cluster.save_plan(plan)
        return cluster

    @classmethod
    def find(cls, home: Path, program: Sequence[str] = PENSTOCKD) -> Self | None:
        """Give the cluster of a folder, or None. Raises DevClusterError where its plan cannot be read."""
        try:
            return cls(home, ClusterPlan.from_json((home / "cluster.json").read_text()), program)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DevClusterError(
                f"{home / 'cluster.json'} is not readable ({error}); `penstock dev reset` removes the cluster"
            ) from error

    def save_plan(self, plan: ClusterPlan) -> None:
        """Take `plan` from the next start of each node on."""
        part = self.home / "cluster.json.part"
        part.write_text(plan.to_json())
        part.replace(self.home / "cluster.json")
        self.plan = plan

    @property
    def bootstrap(self) -> str:
        """Client addresses of all nodes, comma separated."""
        return ",".join(node.client for node in self.plan.nodes)

    @property
    def node_ids(self) -> tuple[int, ...]:
        """All node ids."""
        return tuple(node.node_id for node in self.plan.nodes)

    def node_dir(self, node_id: int) -> Path:
        """Folder of one node."""
        return self.home / f"node-{node_id}"

    def data_dir(self, node_id: int) -> Path:
        """Data directory of one node."""
        return Path(self._planned(node_id).data_dir or self.node_dir(node_id) / "data")

    def _planned(self, node_id: int) -> NodePlan:
        return next(node for node in self.plan.nodes if node.node_id == node_id)

    def log_path(self, node_id: int) -> Path:
        """Log of one node."""
        return self.node_dir(node_id) / "node.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs from starting, stopping or removing this cluster meanwhile. Does not wait for them."""
        with (self.home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DevClusterError(f"another `penstock dev` command is at work on {self.home}") from error
            yield

    def start(self, node_ids: Collection[int] | None = None) -> list[int]:
        """Start these nodes (default: all) where they do not run, formatting those that never were; the ids started."""
        wanted = self.node_ids if node_ids is None else node_ids
        stopped = [node for node in self.plan.nodes if node.node_id in wanted and not self.is_running(node.node_id)]
        if stopped:
            _check_installed()
        for node in stopped:
            self._check_ports(node)
        self._format(stopped)
        for node in stopped:
            self._spawn(node)
        return [node.node_id for node in stopped]

    def _check_ports(self, node: NodePlan) -> None:
        """Ports may stay taken for a moment after a process that held them: wait for that."""
        deadline = time.monotonic() + PORT_WAIT_S
        for port in (node.client_port, node.peer_port):
            while port_in_use(port):
                if time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                raise DevClusterError(
                    f"port {port}, wanted by node {node.node_id}, is in use by another program; "
                    "end that program or choose other ports with --base-port"
                )

    def _format(self, nodes: Collection[NodePlan]) -> None:
        """Format the nodes that have no `formatted` mark; what an earlier, cut-off attempt left is removed first."""
        running: list[tuple[NodePlan, subprocess.Popen[str]]] = []
        for node in nodes:
            folder = self.node_dir(node.node_id)
            if (folder / "formatted").exists():
                continue
            data_dir = self.data_dir(node.node_id)
            shutil.rmtree(data_dir, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            founds = node in self.plan.voters and not (folder / "replaced").exists()
            founding = "--new-cluster" if founds else "--join"
            options = ["--data-dir", str(data_dir), "--node-id", str(node.node_id)]
            command = [*self.program, "format", *options, "--cluster-id", self.plan.cluster_id, founding]
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(command, stdout=quiet, stderr=subprocess.PIPE, text=True)  # noqa: S603  ours
            running.append((node, process))
        for node, process in running:
            _, message = process.communicate(timeout=FORMAT_TIMEOUT_S)
            if process.returncode != 0:
                raise DevClusterError(f"node {node.node_id} could not be formatted: {message.strip()}")
            (self.node_dir(node.node_id) / "formatted").touch()

    def _spawn(self, node: NodePlan) -> None:
        folder = self.node_dir(node.node_id)
        (folder / "node.toml").write_text(node_config(self.plan, node, self.data_dir(node.node_id)))
        log = self.log_path(node.node_id)
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            log.replace(folder / "node.log.1")
        with log.open("a") as file:
            file.write(START_MARK + "\n")
        command = [*node.wrapper, *self.program, "start", "--config", str(folder / "node.toml")]
        process = DetachedProcess.spawn(command, log)
        process.save(folder / "process.json")

    def process(self, node_id: int) -> DetachedProcess | None:
        """Give the node's last started process, running or not."""
        return DetachedProcess.load(self.node_dir(node_id) / "process.json")

    def is_running(self, node_id: int) -> bool:
        """Say whether the node's process is there."""
        process = self.process(node_id)
        return process is not None and process.is_alive()

    def state(self, node_id: int) -> NodeState:
        """Ask the node itself."""
        if not self.is_running(node_id):
            return NodeState.STOPPED
        return NodeState.SERVING if _serves(self._planned(node_id).client) else NodeState.STARTING

    def wait_serving(self, node_ids: Collection[int] | None = None, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until these nodes (default: all) serve; DevClusterError with a log's tail if one ends or is late."""
        deadline = time.monotonic() + timeout_s
        waiting = list(self.node_ids if node_ids is None else node_ids)
        while waiting:
            state = self.state(waiting[0])
            if state is NodeState.SERVING:
                waiting.pop(0)
                continue
            ended = [node_id for node_id in waiting if not self.is_running(node_id)]
            if ended:
                raise DevClusterError(f"node {ended[0]} ended while starting\n{self.log_tail(ended[0])}")
            if time.monotonic() > deadline:
                raise DevClusterError(
                    f"node {waiting[0]} does not serve after {timeout_s:.0f} s\n{self.log_tail(waiting[0])}"
                )
            time.sleep(POLL_S)

    def log_tail(self, node_id: int) -> str:
        """Give the end of what the node logged since its last start, headed by the log's path."""
        path = self.log_path(node_id)
        try:
            lines = path.read_text(errors="replace").rpartition(START_MARK)[2].strip().splitlines()[-LOG_TAIL_LINES:]
        except OSError:
            lines = []
        return "\n".join([f"the end of its log, {path}:", *(f"  {line}" for line in lines or ["(empty)"])])

    def signal(self, node_id: int, number: signal.Signals) -> bool:
        """Signal the node's process; False where it does not run."""
        process = self.process(node_id)
        return process is not None and process.send(number)

    def kill(self, node_id: int) -> None:
        """End the node at once, as kill -9 does, and wait until it is gone. Raises DevClusterError if it stays."""
        self.signal(node_id, signal.SIGKILL)
        self._check_gone([node_id])

    def stop(self, node_ids: Collection[int] | None = None, timeout_s: float = STOP_TIMEOUT_S) -> list[int]:
        """End these nodes (default: all) by SIGTERM, after `timeout_s` by SIGKILL; the ids that had to be killed."""
        running = [n for n in (self.node_ids if node_ids is None else node_ids) if self.signal(n, signal.SIGTERM)]
        late = self._wait_gone(running, timeout_s)
        for node_id in late:
            self.signal(node_id, signal.SIGKILL)
        self._check_gone(late)
        return late

    def _check_gone(self, killed: Collection[int]) -> None:
        if left := self._wait_gone(killed, GONE_TIMEOUT_S):
            raise DevClusterError(f"nodes {left} do not end, not even by SIGKILL")

    def _wait_gone(self, node_ids: Collection[int], timeout_s: float) -> list[int]:
        deadline = time.monotonic() + timeout_s
        left = list(node_ids)
        while left := [node_id for node_id in left if self.is_running(node_id)]:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        return left

    def replace_disk(self, node_id: int) -> None:
        """Give the node an empty disk, formatted with --join, as after the loss of its own; kills it where it runs."""
        self.kill(node_id)
        folder = self.node_dir(node_id)
        (folder / "replaced").touch()  # first: whatever cuts this off, a voter never founds the cluster a second time
        (folder / "formatted").unlink(missing_ok=True)
        self._format([self._planned(node_id)])

    def delete(self) -> None:
        """Stop the nodes and remove everything that this cluster wrote."""
        self.stop()
        remove(self.home)


def remove(home: Path) -> None:
    """Kill what still runs of the cluster in `home`, its plan readable or not, and remove its files alone."""
    folders = [path for path in home.glob("node-[0-9]*") if path.is_dir()]
    for folder in folders:
        process = DetachedProcess.load(folder / "process.json")
        if process is not None:
            process.send(signal.SIGKILL)
            while process.is_alive():
                time.sleep(POLL_S)
        shutil.rmtree(folder)
    (home / "cluster.json").unlink(missing_ok=True)


def _check_installed() -> None:
    missing = [name for name in ("pysyncobj", "lmdb", "uvloop", "grpc_health") if find_spec(name) is None]
    if missing:
        raise DevClusterError(
            f"the server's dependencies are not installed ({', '.join(missing)}): pip install 'penstock[node]'"
        )


def _serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_HEALTH)
            answer = check(b"", timeout=1.0)
        except grpc.RpcError:
            return False
    return answer == _SERVING
