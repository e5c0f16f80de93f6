"""Clients that write, read and change topics while faults happen, and note what they asked and were told.

One part a module; groups and transactions get theirs here: a Process subclass, its options, a line in `workload`.
"""

from penstock.chaos.workload.options import (
    LEDGER,
    ORDERS,
    Access,
    Appenders,
    Changers,
    EndWatchers,
    Readers,
    Senders,
    TopicPlan,
    WorkloadOptions,
)
from penstock.chaos.workload.process import FinalReadError, Progress, WorkloadError
from penstock.chaos.workload.workload import Workload

__all__ = [
    "LEDGER",
    "ORDERS",
    "Access",
    "Appenders",
    "Changers",
    "EndWatchers",
    "FinalReadError",
    "Progress",
    "Readers",
    "Senders",
    "TopicPlan",
    "Workload",
    "WorkloadError",
    "WorkloadOptions",
]
