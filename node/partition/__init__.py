"""One replica of one partition, as the API and the broker see it."""

from penstock.node.partition.partition import Partition
from penstock.node.partition.requests import AppendRequest, AppendResult, Done, FoundOffset, ReadRequest

__all__ = ["AppendRequest", "AppendResult", "Done", "FoundOffset", "Partition", "ReadRequest"]
