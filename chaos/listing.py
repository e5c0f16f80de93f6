"""What faults there are, and why some cannot be done here: asked of a cluster that is planned and not started."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.chaos import ground as grounds
from penstock.chaos.disks import DiskKind
from penstock.chaos.faults import registry
from penstock.chaos.faults.base import Group, Site
from penstock.chaos.local import LocalOptions


def listed_faults(folder: Path, cluster_file: Path | None) -> list[dict[str, Any]]:
    """Give group, name, summary and `missing` (None: can be done) of each fault. Raises ClusterError."""
    return asyncio.run(_listed(folder, cluster_file))


async def _listed(folder: Path, cluster_file: Path | None) -> list[dict[str, Any]]:
    if cluster_file is not None:
        async with grounds.external(cluster_file) as ground:
            return _rows(ground.site)
    async with grounds.planned(folder, LocalOptions(spare=1), DiskKind.EXT4) as ground:
        return _rows(ground.site)


def _rows(site: Site) -> list[dict[str, Any]]:
    site = replace(site, groups=(Group("any", ()),))  # which scenario is not asked
    return [
        {"group": group, "name": fault.name, "summary": fault.summary, "missing": fault.missing(site)}
        for group, faults in registry.GROUPS.items()
        for fault in faults
    ]
