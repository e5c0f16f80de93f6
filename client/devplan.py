"""The plan of a cluster on one machine: its nodes, their ports, and each node's configuration file. Pure."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from penstock.client.ports import Port

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Where one node listens, and what is special about it."""

    node_id: int
    client_port: int
    peer_port: int
    rack: str = ""
    peer_override: Mapping[int, str] = field(default_factory=dict)
    """Addresses this node dials instead of its peers' advertised ones (the chaos suite's proxies)."""
    client_advertise: str = ""
    """Address under which clients are told to reach it, where that is not its listener's."""
    data_dir: str = ""
    """Its data directory, where that is not in the cluster's folder: a disk of its own."""
    wrapper: tuple[str, ...] = ()
    """What runs the server: program and arguments before its own, as in `env NAME=value`."""

    @property
    def client(self) -> str:
        """Address of the client listener."""
        return f"{HOST}:{self.client_port}"

    @property
    def peer(self) -> str:
        """Address of the peer listener."""
        return f"{HOST}:{self.peer_port}"


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What the cluster is made of. Saved; read again by later commands."""

    cluster_id: str
    nodes: tuple[NodePlan, ...]
    durability: str = "commit"
    log_level: str = "info"
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def voters(self) -> tuple[NodePlan, ...]:
        """The first 1, 3 or 5 nodes; the others observe."""
        count = len(self.nodes)
        return self.nodes[: 5 if count >= 5 else 3 if count >= 3 else 1]

    def on_ports_from(self, base_port: int) -> Self:
        """Return the same cluster on other ports: base_port for node 1's clients, the next for its peers, and so on."""
        nodes = [
            replace(node, client_port=base_port + 2 * index, peer_port=base_port + 2 * index + 1)
            for index, node in enumerate(self.nodes)
        ]
        return replace(self, nodes=tuple(nodes))

    def to_json(self) -> str:
        """Give the text that `from_json` reads."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a plan. Raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(text)
        nodes = []
        for node in fields.pop("nodes"):
            override = {int(key): address for key, address in node.pop("peer_override").items()}
            wrapper = tuple(node.pop("wrapper", ()))
            nodes.append(NodePlan(**node, peer_override=override, wrapper=wrapper))
        return cls(nodes=tuple(nodes), **fields)


def make_plan(ports: Sequence[Port], **settings: Any) -> ClusterPlan:
    """Plan a new cluster with one node for each pair of ports. `settings`: further fields of ClusterPlan."""
    pairs = zip(ports[::2], ports[1::2], strict=True)
    nodes = tuple(NodePlan(index, client, peer) for index, (client, peer) in enumerate(pairs, start=1))
    return ClusterPlan(cluster_id=f"dev-{secrets.token_hex(4)}", nodes=nodes, **settings)


def node_config(plan: ClusterPlan, node: NodePlan, data_dir: Path) -> str:
    """Write a node's configuration file (docs/operations.md)."""
    lines = [
        f"node_id = {node.node_id}",
        f"data_dir = {_quoted(str(data_dir.absolute()))}",
        f"rack = {_quoted(node.rack)}",
        f"durability = {_quoted(plan.durability)}",
        f"log_level = {_quoted(plan.log_level)}",
        "[listen]",
        f"client = {_quoted(node.client)}",
        f"peer = {_quoted(node.peer)}",
        *(("[advertise]", f"client = {_quoted(node.client_advertise)}") if node.client_advertise else ()),
        "[voters]",
        *(f"{voter.node_id} = {_quoted(voter.peer)}" for voter in plan.voters),
        "[peer_override]",
        *(f"{node_id} = {_quoted(address)}" for node_id, address in node.peer_override.items()),
        "[limits]",
        *(f"{name} = {value}" for name, value in plan.limits.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON's strings are TOML basic strings
