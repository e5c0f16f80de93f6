"""Three nats-server processes with JetStream in one cluster, on free ports of loopback."""

import contextlib
import http.client
import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.jetstream_tools import SERVER
from penstock.client.ports import free_ports

SERVERS = 3
START_TIMEOUT_S = 120.0
"""Also of a start on many streams."""
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
ANSWER_TIMEOUT_S = 5.0
LOG_TAIL = 500
"""Characters of a server's log in an error."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where one server is."""

    name: str
    folder: Path
    client_port: int
    cluster_port: int
    http_port: int

    def config(self, routes: list[str], *, sync_always: bool) -> str:
        """Give the text of its configuration file; `routes` are the cluster's addresses."""
        sync = "  sync_interval: always\n" if sync_always else ""
        return (
            f"server_name: {self.name}\n"
            f'listen: "127.0.0.1:{self.client_port}"\n'
            f'http: "127.0.0.1:{self.http_port}"\n'
            "jetstream {\n"
            f"  store_dir: {json.dumps(str(self.folder))}\n"
            f"{sync}"
            "}\n"
            "cluster {\n"
            "  name: benchmark\n"
            f'  listen: "127.0.0.1:{self.cluster_port}"\n'
            f"  routes: {json.dumps(routes)}\n"
            "}\n"
        )


class Servers:
    """The three of them. `configure`, then `start` and `stop` as often as wanted."""

    def __init__(self, *, sync_always: bool) -> None:
        self._sync_always = sync_always
        self._servers: list[Server] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap(self) -> str:
        """Addresses for clients, with commas."""
        return ",".join(f"nats://127.0.0.1:{server.client_port}" for server in self._servers)

    def configure(self, folder: Path) -> None:
        """Choose ports and write the configuration below `folder`."""
        ports = iter(free_ports(3 * SERVERS))
        names = [f"n{number}" for number in range(1, SERVERS + 1)]
        self._servers = [Server(name, folder / name, next(ports), next(ports), next(ports)) for name in names]
        routes = [f"nats://127.0.0.1:{server.cluster_port}" for server in self._servers]
        for server in self._servers:
            server.folder.mkdir(parents=True, exist_ok=True)
            _config_path(server).write_text(server.config(routes, sync_always=self._sync_always))

    def start(self) -> None:
        """Start them and wait until all are current with the cluster's leader. After a failure none is left."""
        try:
            for server in self._servers:
                command = [str(SERVER), "-c", str(_config_path(server))]
                with _log_path(server).open("ab") as log:
                    self._processes[server.name] = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - built here
            self._wait_until_current()
        except BaseException:
            self.stop()
            raise

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def stop(self) -> None:
        """End them, by force after STOP_TIMEOUT_S. May be called twice."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _wait_until_current(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (all(map(_is_healthy, self._servers)) and any(map(_leads_all, self._servers))):
            for server in self._servers:
                if (code := self._processes[server.name].poll()) is not None:
                    raise RuntimeError(f"nats-server {server.name} ended with code {code}: {_log_tail(server)}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no whole cluster after {START_TIMEOUT_S:.0f} s: {_log_tail(self._servers[0])}")
            time.sleep(POLL_S)


def _config_path(server: Server) -> Path:
    return server.folder.parent / f"{server.name}.conf"


def _log_path(server: Server) -> Path:
    return server.folder.parent / f"{server.name}.log"


def _log_tail(server: Server) -> str:
    return _log_path(server).read_text(errors="replace")[-LOG_TAIL:]


def _is_healthy(server: Server) -> bool:
    """Say whether it knows the cluster's leader and is current in all that it has."""
    return _get(server, "/healthz").get("status") == "ok"


def _leads_all(server: Server) -> bool:
    """Say whether it leads the cluster and all others are current."""
    cluster = _get(server, "/jsz").get("meta_cluster", {})
    replicas = cluster.get("replicas") or []
    is_leader = cluster.get("leader") == server.name
    return is_leader and len(replicas) == SERVERS - 1 and all(replica.get("current") for replica in replicas)


def _get(server: Server, path: str) -> dict[str, Any]:
    """Ask the server's monitoring; {} where it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=ANSWER_TIMEOUT_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        connection.request("GET", path)
        return dict(json.loads(connection.getresponse().read()))
    return {}
