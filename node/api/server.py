"""The two gRPC servers of a node: what each offers, and the limits both have.

Clients and peers have listeners of their own: each can have its own trust root, and neither can starve the other.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from penstock.node.api.status import StatusInterceptor
from penstock.node.config import Endpoint
from penstock.protocol.limits import MAX_MESSAGE_BYTES
from penstock.v1 import (
    cluster_service_pb2,
    consumer_service_pb2,
    group_service_pb2,
    producer_service_pb2,
    topic_service_pb2,
)

KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
MAX_STREAMS_PER_CONNECTION = 1_000

SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second process on the same port must fail, not share it
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    # No limit on pings: gRPC's own (one in 5 min without data) ends the connections of quiet clients, and after a pause
    # of either side, or of a link, those of its length come at once.
    ("grpc.http2.max_ping_strikes", 0),
)
PUBLIC_SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in (
        (topic_service_pb2.DESCRIPTOR, "TopicService"),
        (cluster_service_pb2.DESCRIPTOR, "ClusterService"),
        (producer_service_pb2.DESCRIPTOR, "ProducerService"),
        (consumer_service_pb2.DESCRIPTOR, "ConsumerService"),
        (group_service_pb2.DESCRIPTOR, "GroupService"),
    )
)


class ListenError(Exception):
    """An address cannot be listened on."""


def new_server() -> grpc.aio.Server:
    """Return a server with the node's limits, whose errors become statuses."""
    return grpc.aio.server(interceptors=(StatusInterceptor(),), options=SERVER_OPTIONS)


def listen(server: grpc.aio.Server, endpoint: Endpoint, key: str) -> None:
    """Bind. Raises ListenError, which names the address and its setting."""
    text = f"cannot listen on {endpoint} ({key}): the port is in use, or the address is not this machine's"
    try:
        port = server.add_insecure_port(str(endpoint))
    except RuntimeError as error:
        raise ListenError(text) from error
    if port == 0:
        raise ListenError(text)


class Health:
    """gRPC health of the client listener: for the server as a whole ("") and each public service."""

    def __init__(self) -> None:
        self._servicer: Any = health.aio.HealthServicer()

    def register(self, server: grpc.aio.Server) -> None:
        """Add health and reflection to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        names: Sequence[str] = (*PUBLIC_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)

    async def report(self, *, serving: bool) -> None:
        """Set the status of everything."""
        status = health_pb2.HealthCheckResponse
        for name in ("", *PUBLIC_SERVICES):
            await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)
