"""What every client has: connections, metadata, and a way to call any broker."""

import random
from collections.abc import Sequence

import grpc

from penstock.client.clock import Clock
from penstock.client.connection import Connections, parse_bootstrap
from penstock.client.metadata import Metadata
from penstock.client.retry import Caller


class ClientSession:
    """Built inside a running event loop; `start` is needed only where leaders are followed."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        credentials: grpc.ChannelCredentials | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.connections = Connections(credentials)
        self.metadata = Metadata(parse_bootstrap(bootstrap), self.connections, clock, rng)
        self.caller = Caller(self.connections, self.metadata.addresses, clock, rng)

    def start(self) -> None:
        """Keep the metadata up to date."""
        self.metadata.start()

    async def close(self) -> None:
        """End tasks and connections."""
        await self.metadata.close()
        await self.connections.close()
