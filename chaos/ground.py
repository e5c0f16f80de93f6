"""What a run stands on: a cluster with its links and disks, and how each of the clients' hosts reaches it.

`local` makes all of it below a run's folder and takes it away again; `external` attaches to what a cluster file names
and leaves it as it was found.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.chaos import external as files
from penstock.chaos.cluster import Cluster, ClusterError
from penstock.chaos.disks import DEFAULT_BYTES, DiskKind, Disks
from penstock.chaos.faults.base import Shape, Site
from penstock.chaos.links import Link, Links
from penstock.chaos.local import LocalCluster, LocalOptions
from penstock.chaos.mounts import MountError
from penstock.chaos.roles import Roles
from penstock.chaos.shims import preload
from penstock.chaos.toxiproxy import ToxiproxyMissingError, ToxiproxyServer
from penstock.chaos.workload import Access


@dataclass(frozen=True, slots=True)
class Ground:
    """See the module."""

    site: Site
    access: Mapping[str, Access]
    """By host."""
    notes: tuple[str, ...] = ()
    """What is not as asked for, in words."""

    @property
    def cluster(self) -> Cluster:
        """The nodes."""
        return self.site.cluster

    @property
    def shape(self) -> Shape:
        """What faults are drawn from."""
        return Shape(self.cluster.node_ids, self.cluster.voters, tuple(self.access))


@asynccontextmanager
async def local(
    folder: Path, options: LocalOptions, disk: DiskKind = DiskKind.PLAIN, disk_bytes: int = DEFAULT_BYTES
) -> AsyncIterator[Ground]:
    """Start a cluster of our own; kill it afterwards. Raises ClusterError, ToxiproxyError."""
    server = await asyncio.to_thread(ToxiproxyServer.start, folder / "toxiproxy.log")
    try:
        disks, notes = await asyncio.to_thread(_disks, folder / "disks", options, disk, disk_bytes)
        try:
            cluster, link_plan = LocalCluster.plan(folder / "cluster", options, disks)
            try:
                links = await asyncio.to_thread(link_plan.make, server)
                cluster.route(links)
                await cluster.start()
                site = Site(cluster, Roles(cluster), links, disks, folder)
                access = {
                    host: Access(cluster.advertised(links), cluster.address_map(host, links)) for host in options.hosts
                }
                yield Ground(site, access, notes)
            finally:
                await cluster.end()
        finally:
            await asyncio.to_thread(disks.close)
    finally:
        await asyncio.to_thread(server.close)


@asynccontextmanager
async def planned(folder: Path, options: LocalOptions, disk: DiskKind = DiskKind.PLAIN) -> AsyncIterator[Ground]:
    """Plan a cluster of our own and start nothing but its links: to ask what could be done to it."""
    disks, notes = await asyncio.to_thread(_disks, folder / "disks", options, disk, DEFAULT_BYTES)
    try:
        cluster, link_plan = LocalCluster.plan(folder / "cluster", options, disks)
        links, server = None, None
        try:
            server = await asyncio.to_thread(ToxiproxyServer.start, folder / "toxiproxy.log")
            links = await asyncio.to_thread(link_plan.make, server)
        except ToxiproxyMissingError as error:
            notes = (*notes, str(error))
        try:
            yield Ground(Site(cluster, Roles(cluster), links, disks, folder), {}, notes)
        finally:
            if server is not None:
                await asyncio.to_thread(server.close)
    finally:
        await asyncio.to_thread(disks.close)


def _disks(folder: Path, options: LocalOptions, kind: DiskKind, size_bytes: int) -> tuple[Disks, tuple[str, ...]]:
    """Make the disks asked for; where this machine cannot, folders."""
    node_ids = range(1, options.nodes + options.spare + 1)
    preloads = preload.find(folder.parent / "shims")
    disks = Disks(folder, kind, size_bytes, preloads)
    try:
        disks.prepare(node_ids)
    except MountError as error:
        disks.close()
        plain = Disks(folder, DiskKind.PLAIN, size_bytes, preloads)
        plain.prepare(node_ids)
        return plain, (f"disks are plain folders instead of {kind}: {error}",)
    return disks, ()


@asynccontextmanager
async def external(path: Path) -> AsyncIterator[Ground]:
    """Attach to the cluster of a file. Raises ClusterError, ToxiproxyError."""
    file = files.load(path)
    cluster = files.ExternalCluster(file)
    links = None
    if file.toxiproxy is not None:
        host, _, port = file.toxiproxy.rpartition(":")
        if not port.isdecimal():
            raise ClusterError(f"{path}: toxiproxy: {file.toxiproxy!r} is not host:port")
        server = await asyncio.to_thread(ToxiproxyServer.connect, host, int(port))
        names = {Link(link.source, link.target): link.proxy for link in file.links}
        links = await asyncio.to_thread(Links.adopt, server, names)
    try:
        yield Ground(Site(cluster, Roles(cluster), links), {host: _access(file, host, links) for host in file.hosts})
    finally:
        if links is not None:
            await links.close()


def _access(file: files.ClusterFile, host: str, links: Links | None) -> Access:
    """Lead a host's clients through its links, where it has some."""
    own = [link for link in file.links if link.source == host] if links is not None else []
    mapped = {} if links is None else {link.target: links.address(Link(host, link.target)) for link in own}
    address_map = {node.client: mapped[node.node_id] for node in file.nodes if node.node_id in mapped}
    return Access(",".join(node.client for node in file.nodes), address_map)
