"""Clients that write, read and change topics while faults happen, and note what they asked and were told.

One part a module; transactions get theirs here: a Process subclass, its options, a line in `workload`. Members of
consumer groups are processes of the system: `crews`, `slots`, `lives`, and penstock.chaos.member.
"""

from penstock.chaos.workload.options import (
    COMPACTED,
    LEDGER,
    ORDERS,
    SIZED,
    TRIMMED,
    Access,
    Appenders,
    Changers,
    EndWatchers,
    Members,
    Readers,
    Rereaders,
    Senders,
    TopicPlan,
    Trimmers,
    WorkloadOptions,
)
from penstock.chaos.workload.process import FinalReadError, Progress, WorkloadError
from penstock.chaos.workload.workload import Workload

__all__ = [
    "COMPACTED",
    "LEDGER",
    "ORDERS",
    "SIZED",
    "TRIMMED",
    "Access",
    "Appenders",
    "Changers",
    "EndWatchers",
    "FinalReadError",
    "Members",
    "Progress",
    "Readers",
    "Rereaders",
    "Senders",
    "TopicPlan",
    "Trimmers",
    "Workload",
    "WorkloadError",
    "WorkloadOptions",
]
