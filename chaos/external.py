"""A cluster that this program did not start, driven as a file says: `penstock-chaos run --cluster FILE`.

Owns the form of the file (docs/chaos.md) and the running of its commands. A command is the operator's own: it runs in a
shell, with a time limit; an exit code other than 0 is an error, but for `running`, where it means "no". What the file
does not name cannot be done, and the faults that need it are skipped with that reason.
"""

import asyncio
import os
import signal
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.chaos.cluster import Action, ClusterError

DEFAULT_COMMAND_TIMEOUT_S = 60.0
OUTPUT_CHARS = 500
"""Of a failed command's output: the end."""


@dataclass(frozen=True, slots=True)
class ExternalNode:
    """One node of the file."""

    node_id: int
    client: str
    peer: str | None = None
    voter: bool = True
    log: Path | None = None
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExternalLink:
    """A proxy that connections of `source` (a node's id or a clients' host) to a node pass."""

    source: int | str
    target: int
    proxy: str


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What the file says."""

    nodes: tuple[ExternalNode, ...]
    links: tuple[ExternalLink, ...] = ()
    toxiproxy: str | None = None
    """host:port of its API."""
    command_timeout_s: float = DEFAULT_COMMAND_TIMEOUT_S

    @property
    def hosts(self) -> tuple[str, ...]:
        """Clients' hosts that have links of their own; else one that dials the nodes themselves."""
        named = dict.fromkeys(link.source for link in self.links if isinstance(link.source, str))
        return tuple(named) or ("c1",)


COMMANDS = (*(action.value for action in Action), "running")
_TEXTS: dict[str, tuple[type, ...]] = dict.fromkeys(COMMANDS, (str,))
_KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"nodes": (list,), "links": (list,), "toxiproxy": (str,), "command_timeout_s": (int, float)},
    "nodes": {"id": (int,), "client": (str,), "peer": (str,), "voter": (bool,), "log": (str,)} | _TEXTS,
    "links": {"source": (int, str), "target": (int,), "proxy": (str,)},
}


def load(path: Path) -> ClusterFile:
    """Read a cluster file. Raises ClusterError that names file and key."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ClusterError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: is not valid TOML: {error}") from error
    _check(path, "", table)
    for section in ("nodes", "links"):
        for row in table.get(section, []):
            _check(path, section, row)
    nodes = tuple(_node(path, row) for row in table.get("nodes", []))
    if len({node.node_id for node in nodes}) != len(nodes) or not nodes:
        raise ClusterError(f"{path}: nodes: wants one table or more, each with an id of its own")
    if not any(node.voter for node in nodes):
        raise ClusterError(f"{path}: nodes: at least one must be a voter")
    links = tuple(_link(path, row, nodes) for row in table.get("links", []))
    if links and "toxiproxy" not in table:
        raise ClusterError(f'{path}: toxiproxy: is missing; links need the address of its API, as "127.0.0.1:8474"')
    timeout = float(table.get("command_timeout_s", DEFAULT_COMMAND_TIMEOUT_S))
    if timeout <= 0:
        raise ClusterError(f"{path}: command_timeout_s: must be above 0, not {timeout}")
    return ClusterFile(nodes, links, table.get("toxiproxy"), timeout)


def _check(path: Path, section: str, row: Any) -> None:
    known = _KEYS[section]
    place = f"{section}." if section else ""
    if not isinstance(row, dict):
        raise ClusterError(f"{path}: {section}: wants tables, [[{section}]]")
    for key, value in row.items():
        if key not in known:
            raise ClusterError(f"{path}: {place}{key}: no such setting; known here: {', '.join(sorted(known))}")
        if not isinstance(value, known[key]) or (isinstance(value, bool) and bool not in known[key]):
            wanted = " or ".join(kind.__name__ for kind in known[key])
            raise ClusterError(f"{path}: {place}{key}: wants {wanted}, not {value!r}")


def _required(path: Path, section: str, row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise ClusterError(f"{path}: {section}.{key}: is required and missing in {dict(row)}")
    return row[key]


def _node(path: Path, row: Mapping[str, Any]) -> ExternalNode:
    return ExternalNode(
        _required(path, "nodes", row, "id"),
        _required(path, "nodes", row, "client"),
        row.get("peer"),
        row.get("voter", True),
        path.parent / row["log"] if "log" in row else None,
        {name: row[name] for name in COMMANDS if name in row},
    )


def _link(path: Path, row: Mapping[str, Any], nodes: tuple[ExternalNode, ...]) -> ExternalLink:
    link = ExternalLink(*(_required(path, "links", row, key) for key in ("source", "target", "proxy")))
    known = {node.node_id for node in nodes}
    for node_id in (link.source, link.target):
        if isinstance(node_id, int) and node_id not in known:
            raise ClusterError(f"{path}: links: there is no node {node_id}, in {dict(row)}")
    return link


class ExternalCluster:
    """The cluster of a file. A `chaos.cluster.Cluster`."""

    def __init__(self, file: ClusterFile) -> None:
        self._file = file
        self._nodes = {node.node_id: node for node in file.nodes}

    @property
    def node_ids(self) -> tuple[int, ...]:
        """All nodes, voters first."""
        return tuple(node.node_id for node in sorted(self._file.nodes, key=lambda node: (not node.voter, node.node_id)))

    @property
    def voters(self) -> tuple[int, ...]:
        """Nodes that vote."""
        return tuple(node_id for node_id in self.node_ids if self._nodes[node_id].voter)

    @property
    def bootstrap(self) -> str:
        """Client addresses of the nodes."""
        return ",".join(node.client for node in self._file.nodes)

    def client_address(self, node_id: int) -> str:
        """One node's client address."""
        return self._nodes[node_id].client

    def peer_address(self, node_id: int) -> str | None:
        """One node's peer address, where the file has it."""
        return self._nodes[node_id].peer

    def missing(self, action: Action) -> str | None:
        """Name the nodes without a command for it."""
        without = [node_id for node_id, node in self._nodes.items() if action.value not in node.commands]
        return f"the cluster file has no command `{action.value}` for node {without[0]}" if without else None

    async def do(self, action: Action, node_id: int) -> None:
        """Run the file's command."""
        command = self._nodes[node_id].commands.get(action.value)
        if command is None:
            raise ClusterError(f"the cluster file has no command `{action.value}` for node {node_id}")
        code, output = await self._run(command)
        if code != 0:
            raise ClusterError(f"`{command}` for node {node_id} ended with exit code {code}: {output}")

    async def is_running(self, node_id: int) -> bool:
        """Ask the file's command `running`; without one: does its client port take connections?"""
        command = self._nodes[node_id].commands.get("running")
        if command is not None:
            return (await self._run(command))[0] == 0
        host, _, port = self._nodes[node_id].client.rpartition(":")
        try:
            async with asyncio.timeout(self._file.command_timeout_s):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            return False
        writer.close()
        return True

    def data_dir(self, node_id: int) -> Path | None:
        """Not ours to touch."""
        del node_id
        return None

    def log_path(self, node_id: int) -> Path | None:
        """The log that the file names."""
        return self._nodes[node_id].log

    async def _run(self, command: str) -> tuple[int, str]:
        with tempfile.TemporaryFile() as output:  # no pipe: a daemon that the command starts may keep it open
            process = await asyncio.create_subprocess_shell(
                command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                async with asyncio.timeout(self._file.command_timeout_s):
                    code = await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                message = f"`{command}` did not end within {self._file.command_timeout_s:.0f} s and was killed"
                raise ClusterError(message) from None
            output.seek(0)
            return code, output.read().decode(errors="replace").strip()[-OUTPUT_CHARS:]
