"""Simulated client processes: the real Producer, Consumer and Admin, each on an event loop and a host of its own.

They note what they did and were told in the History, and fail the run where the client breaks what it documents. They
never judge the cluster: that is for the rules of `history`, at the end.
"""

from tests.simulation.cluster.administering import AdminClient
from tests.simulation.cluster.consuming import ConsumingClient, FinalReader
from tests.simulation.cluster.process import ClientFault, ClientProcess, Site, Topics
from tests.simulation.cluster.producing import AppendingClient, ProducingClient

__all__ = [
    "AdminClient",
    "AppendingClient",
    "ClientFault",
    "ClientProcess",
    "ConsumingClient",
    "FinalReader",
    "ProducingClient",
    "Site",
    "Topics",
]
