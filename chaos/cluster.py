"""What a chaos run may do to a cluster, whoever started it.

`chaos.local` starts one of its own; `chaos.external` drives somebody else's by the commands of a file. Everything is
awaited: an implementation runs what blocks in threads. Node ids are penstockd's.
"""

from enum import StrEnum
from pathlib import Path
from typing import Protocol


class ClusterError(Exception):
    """What was asked of the cluster cannot be done or was not done; the message says why."""


class Action(StrEnum):
    """What can be done to a node."""

    KILL = "kill"
    """End at once, as kill -9; returns when the process is gone."""
    START = "start"
    """Start a node that does not run; returns when the process is there, not when it serves."""
    STOP = "stop"
    """End in order (SIGTERM), leaderships moved away; returns when the process is gone."""
    PAUSE = "pause"
    """Freeze (SIGSTOP)."""
    RESUME = "resume"
    """Let go on (SIGCONT)."""
    REPLACE = "replace"
    """Its disk is empty: `penstockd format --join`. Ends a node that runs; what data there is goes. Starts nothing."""


class Cluster(Protocol):
    """The nodes."""

    @property
    def node_ids(self) -> tuple[int, ...]:
        """All nodes, those that are added later included; voters first."""
        ...

    @property
    def voters(self) -> tuple[int, ...]:
        """Nodes that vote."""
        ...

    @property
    def bootstrap(self) -> str:
        """Client addresses of the nodes, comma separated, past all proxies: for observers, never for workloads."""
        ...

    def client_address(self, node_id: int) -> str:
        """One node's client address, past all proxies."""
        ...

    def peer_address(self, node_id: int) -> str | None:
        """One node's peer listener, past all proxies; None where it is not known."""
        ...

    def missing(self, action: Action) -> str | None:
        """Say why an action cannot be done here; None where it can."""
        ...

    async def do(self, action: Action, node_id: int) -> None:
        """Do it. Raises ClusterError."""
        ...

    async def is_running(self, node_id: int) -> bool:
        """Say whether the node's process is there."""
        ...

    def data_dir(self, node_id: int) -> Path | None:
        """The node's data directory, where this program may reach it."""
        ...

    def log_path(self, node_id: int) -> Path | None:
        """The node's log, where this program may read it."""
        ...
