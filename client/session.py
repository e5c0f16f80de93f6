"""What every client has: connections, metadata, and a way to call any broker."""

from collections.abc import Mapping, Sequence

import grpc

from penstock.client.connection import Connections, parse_bootstrap
from penstock.client.metadata import Metadata
from penstock.client.retry import Caller
from penstock.client.seams import Seams


class ClientSession:
    """Built inside a running event loop; `start` is needed only where leaders are followed."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        credentials: grpc.ChannelCredentials | None,
        seams: Seams,
        address_map: Mapping[str, str] | None = None,
    ) -> None:
        self.clock = seams.clock
        self.rng = seams.rng
        self.unique = seams.unique
        self.connections = Connections(credentials, seams.dial, address_map)
        self.metadata = Metadata(parse_bootstrap(bootstrap), self.connections, self.clock, self.rng)
        self.caller = Caller(self.connections, self.metadata.addresses, self.clock, self.rng)

    def start(self) -> None:
        """Keep the metadata up to date."""
        self.metadata.start()

    async def close(self) -> None:
        """End tasks and connections."""
        await self.metadata.close()
        await self.connections.close()
