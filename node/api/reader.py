"""Reads of the applied metadata: new enough for the caller, never by a node that has not caught up since it started."""

from collections.abc import Callable

from penstock.node.api.status import Context
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import MetadataImage
from penstock.raft.view import View

VIEW_WAIT_S = 5.0


class MetadataReader:
    """`is_current`: whether this node has been admitted since it started, so that its metadata denies nothing old."""

    def __init__(self, view: View, is_current: Callable[[], bool]) -> None:
        self.view = view
        self._is_current = is_current

    async def at_least(self, version: int, context: Context) -> MetadataImage:
        """Wait until this node has applied a version that the caller has seen. Raises NOT_SERVING, METADATA_BEHIND."""
        if not self._is_current():
            raise PenstockError(Reason.NOT_SERVING, "this node is starting and may not know the present metadata")
        if self.view.image.version < version:
            try:
                await self.view.wait_for(version, min(VIEW_WAIT_S, context.time_remaining() or VIEW_WAIT_S))
            except TimeoutError:
                text = f"metadata version {version} was asked for, this node is at {self.view.image.version}"
                raise PenstockError(Reason.METADATA_BEHIND, text) from None
        return self.view.image
