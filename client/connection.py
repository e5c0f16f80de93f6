"""gRPC channels, one per broker address, with the stubs of all services.

A call is made only on a channel that is READY: so a broker that cannot be reached is a definite failure (nothing was
sent), and what fails later on a write is of unknown outcome.
"""

import asyncio
from collections.abc import Mapping, Sequence

import grpc

from penstock.client.errors import InvalidRequestError, UnavailableError
from penstock.client.seams import Dial
from penstock.protocol.limits import MAX_MESSAGE_BYTES
from penstock.protocol.reasons import Reason
from penstock.v1 import (
    cluster_service_pb2_grpc,
    consumer_service_pb2_grpc,
    group_service_pb2_grpc,
    producer_service_pb2_grpc,
    topic_service_pb2_grpc,
)

KEEPALIVE_TIME_MS = 10_000
"""A connection silent for this long is probed. Penstock's servers set no limit on probes."""
KEEPALIVE_TIMEOUT_MS = 5_000
"""A probe unanswered for this long ends the connection."""
CONNECT_TIMEOUT_MS = 2_000
"""How long one attempt to connect may take before another broker is tried."""
MIN_RECONNECT_MS = 50
MAX_RECONNECT_MS = 500

_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", MIN_RECONNECT_MS),
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
    ("grpc.use_local_subchannel_pool", 1),
)

_CONNECTING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


class Connection:
    """A channel to one broker and its stubs."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.cluster = cluster_service_pb2_grpc.ClusterServiceStub(self.channel)
        self.topics = topic_service_pb2_grpc.TopicServiceStub(self.channel)
        self.producer = producer_service_pb2_grpc.ProducerServiceStub(self.channel)
        self.consumer = consumer_service_pb2_grpc.ConsumerServiceStub(self.channel)
        self.groups = group_service_pb2_grpc.GroupServiceStub(self.channel)

    async def ready(self) -> None:
        """Return when the channel is connected; UnavailableError at once where it cannot be."""
        state = self.channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1000):
                while state in _CONNECTING:
                    await self.channel.wait_for_state_change(state)
                    state = self.channel.get_state(try_to_connect=True)
        except TimeoutError:
            pass
        if state is not grpc.ChannelConnectivity.READY:
            raise UnavailableError(Reason.NOT_SERVING, f"cannot connect to {self.address}", {"address": self.address})


class Connections:
    """All channels of one client. Owned and used by one event loop."""

    def __init__(
        self, credentials: grpc.ChannelCredentials | None, dial: Dial, address_map: Mapping[str, str] | None = None
    ) -> None:
        self._credentials = credentials
        self._dial = dial
        self._address_map = dict(address_map or {})
        self._open: dict[str, Connection] = {}
        self._closed = False

    def get(self, address: str) -> Connection:
        """Give the connection to `address`, without connecting yet."""
        connection = self._open.get(address)
        if connection is None:
            channel = self._dial(self._address_map.get(address, address), self._credentials, _OPTIONS)
            connection = self._open[address] = Connection(address, channel)
        return connection

    def dial_blocking(self, address: str) -> grpc.Channel:
        """Make a channel to `address` for another thread, whose own it is then."""
        mapped = self._address_map.get(address, address)
        if self._credentials is None:
            return grpc.insecure_channel(mapped, options=_OPTIONS)
        return grpc.secure_channel(mapped, self._credentials, options=_OPTIONS)

    async def ready(self, address: str) -> Connection:
        """Give the connection to `address`, connected; UnavailableError where that fails."""
        if self._closed:
            raise UnavailableError(Reason.NOT_SERVING, "the client is closed")
        connection = self.get(address)
        await connection.ready()
        return connection

    async def close(self) -> None:
        """Close every channel; calls under way are cancelled."""
        self._closed = True
        connections, self._open = list(self._open.values()), {}
        for connection in connections:
            await connection.channel.close()


def parse_bootstrap(bootstrap: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses of "host:port,host:port" or of a sequence of them; InvalidRequestError for anything else."""
    parts = bootstrap.split(",") if isinstance(bootstrap, str) else list(bootstrap)
    addresses = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not addresses:
        raise InvalidRequestError(Reason.INVALID_ARGUMENT, "no bootstrap address is given")
    for address in addresses:
        host, separator, port = address.rpartition(":")
        if not (host and separator and port.isdecimal() and 0 < int(port) < 65536):
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, f"bootstrap address {address!r} is not host:port")
    return addresses
