"""What a fault is: drawn from a seed (pure), injected into a site, healed, and asked whether it really hit."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from penstock.chaos.cluster import Cluster

if TYPE_CHECKING:
    from penstock.chaos.disks import Disks
    from penstock.chaos.links import Links
    from penstock.chaos.roles import Roles

Params = Mapping[str, Any]
"""What was drawn for one injection; JSON."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What faults may draw from: names only, so that a plan depends on nothing but seed and shape."""

    nodes: tuple[int, ...]
    voters: tuple[int, ...]
    hosts: tuple[str, ...]
    """Of the clients."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group that the workload has."""

    name: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """What faults may use."""

    cluster: Cluster
    roles: "Roles"
    links: "Links | None" = None
    """None: no proxies."""
    disks: "Disks | None" = None
    """None: the nodes' disks are not ours."""
    folder: Path = Path()
    """For files of faults."""
    groups: tuple[Group, ...] = ()
    """None: the workload has no consumer groups."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Did the fault really do anything?"""

    hit: bool
    evidence: str
    """What was measured, in words: "3 of 3 nodes were running and are gone", "0 bytes were held up"."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault does, as far as is known when it has been injected."""

    detail: str
    """In words, with the nodes that were chosen by their roles."""
    nodes: tuple[int, ...] = ()
    """Nodes that are hit."""
    majority: bool = True
    """A majority of voters, and min_insync replicas of each partition, go on and reach each other."""
    cut_hosts: tuple[str, ...] = field(default=())
    """Clients' hosts that do not reach that majority."""


class Injected(Protocol):
    """A fault that is there."""

    effect: Effect

    async def heal(self) -> Hit:
        """Undo it: the cluster can be whole again after that (it need not be yet). Called once, also at a break-off."""
        ...


class Fault(Protocol):
    """One kind of fault. Raises nothing but ClusterError and FaultError from `inject` and `heal`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `penstock-chaos list`."""

    def missing(self, site: Site) -> str | None:
        """Say why it cannot be done here (no root, no kernel feature, no command); None where it can."""
        ...

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        """Choose targets by role or id, and strengths. Pure."""
        ...

    async def inject(self, site: Site, params: Params) -> Injected:
        """Do it; what was begun is undone where it fails half way."""
        ...


class FaultError(Exception):
    """A fault could not be injected or healed; the message says why."""
