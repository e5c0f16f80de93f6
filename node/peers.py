"""gRPC channels to the other nodes' peer listeners, one a node, made on first use."""

import asyncio
import contextlib
from collections.abc import Callable

import grpc

from penstock.node.config import Endpoint
from penstock.protocol.limits import MAX_MESSAGE_BYTES

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)


def channel_to(endpoint: Endpoint) -> grpc.aio.Channel:
    """Open a new channel, the caller's to close."""
    return grpc.aio.insecure_channel(str(endpoint), CHANNEL_OPTIONS)


async def refuses(endpoint: Endpoint | None, timeout_s: float = 0.5) -> bool:
    """Whether nobody listens at the address: the connection is refused. A time-out says nothing."""
    if endpoint is None:
        return False
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except ConnectionRefusedError:
        return True
    except OSError:  # TimeoutError too
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return False


class PeerChannels:
    """Owns the channels. A node that registers with another address gets a new one."""

    def __init__(
        self,
        address_of: Callable[[int], Endpoint | None],
        open_channel: Callable[[Endpoint], grpc.aio.Channel] = channel_to,
    ) -> None:
        self._address_of = address_of
        self._open_channel = open_channel
        self._channels: dict[int, tuple[str, grpc.aio.Channel]] = {}

    async def to(self, node_id: int) -> grpc.aio.Channel | None:
        """Return a channel to the node; None where its address is not known."""
        endpoint = self._address_of(node_id)
        if endpoint is None:
            return None
        target = str(endpoint)
        known = self._channels.get(node_id)
        if known is not None and known[0] == target:
            return known[1]
        channel = self._open_channel(endpoint)
        self._channels[node_id] = (target, channel)
        if known is not None:
            await known[1].close()
        return channel

    async def close(self) -> None:
        """Close all channels; calls under way end as cancelled."""
        channels = [channel for _, channel in self._channels.values()]
        self._channels.clear()
        for channel in channels:
            await channel.close()
