"""What a node says of itself when it registers."""

from collections.abc import Callable
from typing import Protocol

from penstock import __version__
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.config import Endpoint, NodeConfig
from penstock.raft.command import SUPPORTED_LEVEL
from penstock.storage import StoreIdentity
from penstock.v1 import common_pb2 as common

DURABILITIES = {
    "commit": common.DURABILITY_COMMIT,
    "interval": common.DURABILITY_INTERVAL,
    "os": common.DURABILITY_OS,
}
"""v1.Durability by the word in the configuration file."""


class Journal(Protocol):
    """What a registration says of this node's Raft journal; RaftNode has it."""

    @property
    def journal_id(self) -> bytes:
        """Drawn when it was formatted."""
        ...

    @property
    def may_vote(self) -> bool:
        """Whether it was founding, or admitted since."""
        ...


def registration(
    config: NodeConfig, identity: StoreIdentity, start_ids: tuple[bytes, ...], journal: Journal, *, clean: bool
) -> pb.Registration:
    """Return the registration of a node.

    `start_ids`: all since the last answered registration, that one's included, the present one last (rule 27).
    `clean`: every start among them ended with all its appends durable (rule 9; always so at durability commit).
    """
    return pb.Registration(
        node_id=config.node_id,
        cluster_id=identity.cluster_id,
        store_id=identity.store_id,
        start_ids=start_ids,
        client_address=_address(config.client_advertise),
        peer_address=_address(config.peer_advertise),
        rack=config.rack,
        durability=DURABILITIES[config.durability],
        version=__version__,
        supported_level=SUPPORTED_LEVEL,
        journal_id=journal.journal_id,
        may_vote=journal.may_vote,
        clean=clean,
    )


def _address(endpoint: Endpoint) -> pb.NodeAddress:
    return pb.NodeAddress(host=endpoint.host, port=endpoint.port)


RegistrationSource = Callable[[], pb.Registration]
"""Makes the registration of this moment: the start ids change."""
