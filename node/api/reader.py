"""Reads of the applied metadata: new enough for the caller, never by a node that has not caught up since it started."""

import contextlib
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

    async def shows(self, version: int, context: Context) -> None:
        """Wait a while until this node shows a change that was made. Never an error: the change is done.

        NOT_SERVING or METADATA_BEHIND would say that it is not, and the client would try again elsewhere.
        """
        with contextlib.suppress(TimeoutError):
            await self.view.wait_for(version, _wait_s(context))

    async def at_least(self, version: int, context: Context) -> MetadataImage:
        """Wait until this node has applied a version that the caller has seen. Raises NOT_SERVING, METADATA_BEHIND."""
        if not self._is_current():
            raise PenstockError(Reason.NOT_SERVING, "this node is starting and may not know the present metadata")
        if self.view.image.version < version:
            try:
                await self.view.wait_for(version, _wait_s(context))
            except TimeoutError:
                text = f"metadata version {version} was asked for, this node is at {self.view.image.version}"
                raise PenstockError(Reason.METADATA_BEHIND, text) from None
        return self.view.image


def _wait_s(context: Context) -> float:
    """Within the caller's deadline, with time left for the answer."""
    return min(VIEW_WAIT_S, (context.time_remaining() or 2 * VIEW_WAIT_S) / 2)
