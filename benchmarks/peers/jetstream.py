"""NATS JetStream as a peer: three servers in a cluster, and a client in Go.

Versions are in `jetstream_tools`. A topic of P partitions is P streams of one subject each (`NAME.P`), in files, with 1
or 3 replicas: a stream is JetStream's unit of order, replication and leadership; to partition is to have more of them.
Leaders are where the cluster puts them. Nothing else differs from NATS' defaults, except:

- `allow_batched` of the streams, which fast ingest needs,
- in `jetstream-synced`: `sync_interval: always` of the servers.

What an acknowledgement means. With three replicas it comes after a quorum has the message in its Raft log; there is no
other choice, so that the workloads' acks `leader` and `all` are the same here.

- `jetstream`: the log is written, not synced; it is within `sync_interval`, two minutes. What was acknowledged is lost
  when a quorum loses power, and survives the end of processes.
- `jetstream-synced`: each server of the quorum syncs its log before, so that what was acknowledged is on two disks or
  more. It is what NATS' documentation advises against a loss of power. (The stream's own file, behind the log, is
  synced when the log is cut.) With one replica, the stream's file is synced.

The client is NATS' own for Go: the one for Python does a small part of the work in the same time (`jetstream_python`).
`throughput` uses fast ingest (nats-server 2.14, orbit.go): a goroutine and a batch without end for each stream, and
acknowledgements for all messages up to one, with flow control by the server. The other way, PublishAsync with an
acknowledgement a message, is used for `open_loop`, `tail`; `series` uses Publish. There are no batches of a client's
making: each record is a message, on the wire and in the log, and `batch_bytes` and `linger_ms` mean nothing. `consume`
and `tail` use ordered consumers with a prefetch; they give single messages, so that the form `batches` is `records`.
"""

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any, Literal

from benchmarks.peers.jetstream_servers import Servers
from benchmarks.peers.jetstream_tools import CLIENT, prepare
from benchmarks.result import Load
from benchmarks.system import UnavailableError
from benchmarks.workloads import Workload
from penstock.client.bench.histogram import Histogram

Publish = Literal["fast", "async"]
"""How `throughput` is published: see the client's throughput.go."""


def system(name: str) -> "JetStream":
    """Give the servers of 'jetstream' or 'jetstream-synced', not started."""
    return JetStream(name)


def driver(name: str) -> "JetStreamDriver":  # noqa: ARG001 - both are driven alike
    """Give the client."""
    return JetStreamDriver()


class JetStream:
    """A System of benchmarks/system.py."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bootstrap = ""
        self._servers = Servers(sync_always=name == "jetstream-synced")
        self._created: Workload | None = None

    def prepare(self) -> None:
        """Build server and client. Raises UnavailableError."""
        prepare()

    def start(self, folder: Path) -> None:
        """Start three servers and wait until each is current with the leader of the cluster."""
        self._servers.configure(folder)
        self.bootstrap = self._servers.bootstrap
        self._servers.start()

    def create(self, workload: Workload) -> None:
        """Make the streams and wait until each has its leader. Raises UnavailableError where the servers refuse."""
        try:
            _client("create", self.bootstrap, workload.to_json())
        except ClientError as error:
            raise UnavailableError(f"{workload.partitions} streams were not made: {error}") from error
        self._created = workload

    def restart(self) -> None:
        """Stop the servers, start them on what they have, and wait until the streams have their leaders."""
        self._servers.stop()
        self._servers.start()
        if self._created is not None:
            self.create(self._created)

    def pids(self) -> dict[str, int]:
        """Process ids by the servers' names."""
        return self._servers.pids()

    def stop(self) -> None:
        """End the servers."""
        self._servers.stop()


class JetStreamDriver:
    """A Driver of benchmarks/system.py: runs the Go program, whose time and CPU are those of the Load."""

    def __init__(self, publish: Publish = "fast") -> None:
        self._publish = publish

    def drive(self, bootstrap: str, workload: Workload) -> Load:
        """Do the work. Raises ClientError on any failure."""
        content = json.loads(_client("drive", bootstrap, {**workload.to_json(), "publish": self._publish}))
        # Exact microseconds become buckets.
        latency = Histogram(map(tuple, content["latency"])).to_json()
        return Load.from_json({**content, "latency": latency})

    def fill(self, bootstrap: str, workload: Workload) -> None:
        """Put `records` records into the streams."""
        _client("fill", bootstrap, workload.to_json())


class ClientError(Exception):
    """The Go program failed; the message is what it said."""


def _client(action: str, bootstrap: str, workload: dict[str, Any]) -> str:
    """Run the Go program; give what it prints. It ends by itself when this process does: its input is closed."""
    if not CLIENT.exists():
        raise UnavailableError("the JetStream client is not built: call prepare() first")
    pipe, command = subprocess.PIPE, [str(CLIENT), action, bootstrap]
    # Without a buffer: what a program that has failed did not read must not fail again when the pipe is closed.
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as process:  # noqa: S603 - built here
        try:
            printed, said = _talk(process, json.dumps(workload).encode() + b"\n")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ClientError(said.decode().strip() or f"exit code {process.returncode}")
    return printed.decode()


def _talk(process: subprocess.Popen[bytes], line: bytes) -> tuple[bytes, bytes]:
    """Write the line, keep the input open until the program ends; give what it wrote to output and error."""
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ClientError("the program has no pipes")
    with contextlib.suppress(BrokenPipeError):  # it has failed already, and says why
        process.stdin.write(line)
    # It says no more than a line of an error, which a pipe holds while the output is read.
    printed, said = process.stdout.read(), process.stderr.read()
    process.wait()
    return printed, said
