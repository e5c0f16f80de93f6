"""Finds the coordinator of a group, and follows it when it moves."""

import logging

from penstock.client.connection import Connection
from penstock.client.retry import CallPolicy
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

NO_EPOCH = -1
_LOG = logging.getLogger("penstock.client")


class Coordinator:
    """See the module. Used from one event loop."""

    def __init__(self, session: ClientSession, group: str) -> None:
        self.known: str | None = None
        """Its address, where it is known."""
        self._session = session
        self._group = group
        self._leader_epoch = NO_EPOCH

    async def address(self, timeout_ms: float) -> str:
        """Give its address, asked of any broker where it is not known. Raises PenstockError."""
        if self.known is None:
            request = pb.FindCoordinatorRequest(group_id=self._group)
            policy = CallPolicy(max(1, int(timeout_ms)), attempt_timeout_ms=3_000)
            answer = await self._session.caller.call(_find, request, pb.FindCoordinatorResponse, policy)
            if answer.leader_epoch >= self._leader_epoch:
                self._leader_epoch = answer.leader_epoch
                self.known = f"{answer.host}:{answer.port}"
            elif self.known is None:
                text = f"{answer.host}:{answer.port} is named as coordinator of group {self._group!r} by a broker"
                raise PenstockError(Reason.LEADER_NOT_AVAILABLE, text + " that is behind")
        return self.known

    def failed(self, address: str, error: PenstockError | None) -> None:
        """A call or a stream to `address` has failed; None: it just broke."""
        if error is not None and error.reason is Reason.NOT_COORDINATOR:
            self._learn(error)
        elif (error is None or error.reason is not Reason.COORDINATOR_LOADING) and self.known == address:
            self.known = None

    def _learn(self, error: PenstockError) -> None:
        self.known = None
        host, port, epoch = (error.metadata.get(name, "") for name in ("host", "port", "leader_epoch"))
        if host and port and epoch.isdecimal() and int(epoch) >= self._leader_epoch:
            self._leader_epoch = int(epoch)
            self.known = f"{host}:{port}"


def _find(connection: Connection) -> object:
    return connection.groups.FindCoordinator
