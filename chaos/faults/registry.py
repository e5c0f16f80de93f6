"""All faults, by group. The one table."""

from collections.abc import Mapping

from penstock.chaos.faults import clock, disks, groups, links, membership, process
from penstock.chaos.faults.base import Fault

GROUPS: Mapping[str, tuple[Fault, ...]] = {
    "process": process.FAULTS,
    "membership": membership.FAULTS,
    "link": links.FAULTS,
    "disk": disks.FAULTS,
    "clock": clock.FAULTS,
    "group": groups.FAULTS,
}
FAULTS: Mapping[str, Fault] = {fault.name: fault for faults in GROUPS.values() for fault in faults}
