"""Three Kafka brokers on loopback, as benchmarks.system wants them.

Owns their processes, and the files below the folder it was given. The brokers die with the thread that called `start`
or `restart`, should it end without `stop`.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from benchmarks.peers.kafka import config, jars
from benchmarks.workloads import Workload
from penstock.client.ports import free_ports

BROKERS = 3
START_TIMEOUT_S = 90.0
FORMAT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
"""For an orderly stop; then they are killed."""
_POLL_S = 0.1
_SHOWN_CHARACTERS = 2_000
"""Of a broker's log when it fails."""
_Process = subprocess.Popen[bytes]


class KafkaSystem:
    """See the module; the contract is benchmarks.system.System's."""

    def __init__(self, name: str, *, synced: bool) -> None:
        self.name = name
        self.bootstrap = ""
        self._synced = synced
        self._nodes: list[config.Node] = []
        self._processes: dict[str, _Process] = {}
        self._workloads: list[Workload] = []
        self._java = ""
        self._jars = Path()

    def prepare(self) -> None:
        """Find Java and Python's client, get the jars."""
        jars.require_client()
        self._java, self._jars = jars.java(), jars.fetch()

    def start(self, folder: Path) -> None:
        """Format, start and warm up three brokers. Raises RuntimeError, TimeoutError; no process is left then."""
        self.prepare()
        self._nodes = config.make_nodes(folder, free_ports(2 * BROKERS))
        self.bootstrap = ",".join(f"127.0.0.1:{node.port}" for node in self._nodes)
        self._workloads = []
        try:
            self._format()
            self._launch()
            self._warm_up()
        except BaseException:
            self.stop()
            raise

    def create(self, workload: Workload) -> None:
        """Make the topic; check that the brokers flush as this system's name says."""
        from benchmarks.peers.kafka.topics import Administrator  # noqa: PLC0415  the client may not be installed

        administrator = Administrator(self.bootstrap)
        administrator.create(workload, BROKERS)
        administrator.check_flush(workload.name, synced=self._synced)
        self._workloads.append(workload)

    def restart(self) -> None:
        """Stop the brokers in order, start them on their data, and have the topics led as before."""
        from benchmarks.peers.kafka.topics import Administrator  # noqa: PLC0415  the client may not be installed

        try:
            self._end_in_order()
            self._launch()
            administrator = Administrator(self.bootstrap)
            for workload in self._workloads:
                administrator.lead_as_assigned(workload, BROKERS)
            self._warm_up()
        except BaseException:
            self.stop()
            raise

    def pids(self) -> dict[str, int]:
        """Give the brokers' process ids."""
        return {name: process.pid for name, process in self._processes.items()}

    def stop(self) -> None:
        """Kill the brokers: nobody wants their data any more."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes = {}

    def _format(self) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        for node in self._nodes:
            node.folder.mkdir(parents=True)
            properties = config.broker_properties(node, self._nodes, synced=self._synced)
            _properties_path(node).write_text(config.properties_text(properties))
            options = ["format", f"--cluster-id={cluster_id}", f"--config={_properties_path(node)}"]
            self._processes[node.name] = self._spawn(node, config.FORMATTER, options)
        for node in self._nodes:
            if self._processes[node.name].wait(FORMAT_TIMEOUT_S) != 0:
                raise RuntimeError(f"{node.name} was not formatted:\n{_log_tail(node)}")
        self._processes = {}

    def _launch(self) -> None:
        from benchmarks.peers.kafka.topics import Administrator  # noqa: PLC0415  the client may not be installed

        for node in self._nodes:
            self._processes[node.name] = self._spawn(node, config.MAIN, [str(_properties_path(node))])
        deadline = time.monotonic() + START_TIMEOUT_S
        for node in self._nodes:
            while not _listens(node):
                if self._processes[node.name].poll() is not None:
                    raise RuntimeError(f"{node.name} ended:\n{_log_tail(node)}")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{node.name} does not serve:\n{_log_tail(node)}")
                time.sleep(_POLL_S)
        Administrator(self.bootstrap).wait_brokers(BROKERS)

    def _warm_up(self) -> None:
        from benchmarks.peers.kafka import warming  # noqa: PLC0415  the client may not be installed

        for topic in warming.TOPICS:
            if topic not in self._workloads:
                self.create(topic)
        warming.warm_up(self.bootstrap)

    def _end_in_order(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = {}

    def _spawn(self, node: config.Node, main: str, arguments: list[str]) -> _Process:
        """Start Java, tethered to this thread; its output goes to the node's log."""
        command = config.java_command(self._java, self._jars, jars.HERE / "log4j2.properties", main, arguments)
        tether = [sys.executable, "-I", str(jars.HERE / "tethered.py"), str(os.getpid())]
        with _log_path(node).open("ab") as log:
            return subprocess.Popen(  # noqa: S603  Java of this machine, no shell
                [*tether, *command],
                cwd=node.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's SIGINT is for this program, which stops them
            )


def _properties_path(node: config.Node) -> Path:
    return node.folder / "server.properties"


def _log_path(node: config.Node) -> Path:
    return node.folder / "broker.log"


def _log_tail(node: config.Node) -> str:
    return _log_path(node).read_text(errors="replace")[-_SHOWN_CHARACTERS:]


def _listens(node: config.Node) -> bool:
    """Say whether the broker takes connections of clients: the last thing that a starting broker does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", node.port)) == 0
