"""Clients that write, read and change topics while faults happen, and note what they asked and were told.

One part a module; groups and transactions get theirs here: a Process subclass, its options, a line in `workload`.
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
