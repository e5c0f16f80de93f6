"""Giving the store's free room back, as one node does it: refuse or agree, and the copy between two runs.

The broker decides here whether it may go, ends as at an orderly stop, and `run` copies the store and runs the node
anew. A copy that fails leaves the store as it was, and the node goes on with it; but damage ends the process, as it
does wherever it is met.
"""

import asyncio
import logging
from collections.abc import Callable

from penstock.node.absence import objections, only_here
from penstock.node.config import NodeConfig
from penstock.node.platform import Platform, store_options
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import MetadataImage
from penstock.storage import (
    DamagedStoreError,
    Figures,
    StorageError,
    Store,
    StoreFullError,
    check_room,
    compact,
    figures,
)

_log = logging.getLogger(__name__)


class StoreCompaction:
    """Answers requests to compact the store of a running node, on its loop."""

    def __init__(
        self,
        node_id: int,
        store: Store,
        image: Callable[[], MetadataImage],
        check_serving: Callable[[], None],
        begin: Callable[[], None],
    ) -> None:
        """`check_serving` raises unless the node serves and is not about to end; `begin`: end, copy, run again."""
        self._node_id = node_id
        self._store = store
        self._image = image
        self._check_serving = check_serving
        self._begin = begin

    def request(self, *, validate_only: bool) -> Figures:
        """Begin, unless it is only asked whether it could be done; the figures of now.

        Raises NOT_SERVING, NOT_ENOUGH_REPLICAS, STORE_FULL, all with the figures among their metadata.
        """
        found = figures(self._store.environment)
        try:
            self._check(found)
        except PenstockError as error:
            known = {"used_bytes": str(found.used_bytes), "disk_bytes": str(found.disk_bytes)}
            raise PenstockError(error.reason, error.message, {**error.metadata, **known}) from None
        if not validate_only:
            self._warn()
            self._begin()
        return found

    def _check(self, found: Figures) -> None:
        self._check_serving()
        against = objections(self._image(), self._node_id)
        if against:
            text = f"node {self._node_id} cannot be spared now: {'; '.join(against)}"
            raise PenstockError(Reason.NOT_ENOUGH_REPLICAS, text, {"node_id": str(self._node_id)})
        try:
            check_room(found, self._store.environment.path)
        except StoreFullError as error:
            raise PenstockError(Reason.STORE_FULL, str(error), {"free_bytes": str(found.free_bytes)}) from error

    def _warn(self) -> None:
        alone = only_here(self._image(), self._node_id)
        if alone:
            names = ", ".join(alone[:10])
            _log.warning("%d partitions are not served until the store is compacted: %s", len(alone), names)


async def compact_now(config: NodeConfig, platform: Platform) -> None:
    """Compact the store of a node that has just ended. Raises DamagedStoreError; tells of other failures in the log."""
    platform.catch_signals(platform.end_orderly)  # an unfinished copy is removed at the next start
    _log.info("compacting the store")
    try:
        before, after = await asyncio.to_thread(compact_closed, config)
    except DamagedStoreError:
        raise
    except StorageError as error:
        _log.error("the store was not compacted and is as it was: %s", error)
    else:
        _log.info("the store was compacted from %d to %d bytes", before.disk_bytes, after.disk_bytes)


def compact_closed(config: NodeConfig) -> tuple[Figures, Figures]:
    """Compact the store of a node that does not run; the figures before and after. Raises StorageError."""
    return compact(config.store_dir, store_options(config), node_id=config.node_id)
