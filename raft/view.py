"""This node's applied metadata: the newest image, and who waits for the next.

Owns the hop from the consensus thread to the event loop. Invariants: versions never go back; subscribers see a rising
sequence of whole images, may skip some, and act on the difference (old, new), never on single events.
"""

import asyncio
import logging
import threading
from collections.abc import Callable

from penstock.raft.image import EMPTY_IMAGE, MetadataImage

_log = logging.getLogger(__name__)

Subscriber = Callable[[MetadataImage, MetadataImage], None]


class View:
    """Built on the event loop that its subscribers live on."""

    def __init__(self, image: MetadataImage = EMPTY_IMAGE, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._published = image
        self._image = image
        self._lock = threading.Lock()
        self._hop_due = False
        self._subscribers: dict[object, Subscriber] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        if loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                self._loop = None

    @property
    def image(self) -> MetadataImage:
        """The newest image that subscribers have been shown. Loop thread."""
        return self._image

    def publish(self, image: MetadataImage) -> None:
        """Show a newer image. Any thread, in order of version; without an event loop it is shown at once."""
        with self._lock:
            if image.version < self._published.version:
                raise ValueError(f"metadata version {image.version} after {self._published.version}")
            self._published = image
            if self._hop_due:
                return
            self._hop_due = self._loop is not None
        if self._loop is None:
            self._show()
            return
        try:
            self._loop.call_soon_threadsafe(self._show)
        except RuntimeError:  # the loop is closed: the process is ending
            _log.debug("metadata version %d came after the event loop ended", image.version)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback(old, new)` on the loop for each newer image; returns the way to end it."""
        key = object()
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    async def wait_for(self, version: int, timeout_s: float) -> MetadataImage:
        """Wait until the image is at least of this version. Raises TimeoutError."""
        if self._image.version < version:
            waiter = asyncio.get_running_loop().create_future()
            entry = (version, waiter)
            self._waiters.append(entry)
            try:
                async with asyncio.timeout(timeout_s):
                    await waiter
            finally:
                if entry in self._waiters:
                    self._waiters.remove(entry)
        return self._image

    def _show(self) -> None:
        with self._lock:
            self._hop_due = False
            new = self._published
        old = self._image
        if new is old:
            return
        self._image = new
        for callback in list(self._subscribers.values()):
            try:
                callback(old, new)
            except Exception:  # noqa: BLE001  one subscriber's fault must not hide the metadata from the others
                _log.exception("a metadata subscriber failed at version %d", new.version)
        due = [waiter for version, waiter in self._waiters if version <= new.version]
        self._waiters = [entry for entry in self._waiters if entry[0] > new.version]
        for waiter in due:
            if not waiter.done():
                waiter.set_result(None)
