"""The metadata state machine as consensus drives it: holds the image, publishes each next one to the view.

On the consensus thread only. Never: decides (`raft.state` applies, the controller decides).
"""

from collections.abc import Callable

from penstock.raft import state
from penstock.raft.group_records import GroupEncoder
from penstock.raft.image import EMPTY_IMAGE, MetadataImage
from penstock.raft.records import decode_image, encode_image


class MetadataMachine:
    """A `raft.cluster.StateMachine`. `publish` gets every image, in order; `View.publish` is meant."""

    def __init__(self, publish: Callable[[MetadataImage], None]) -> None:
        self._publish = publish
        self.image = EMPTY_IMAGE
        self._groups = GroupEncoder()

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply a command; the serialized MetadataResult. Raises UnknownCommandError, on which the node stops."""
        self.image, result = state.apply(self.image, index, command)
        self._publish(self.image)
        return result.SerializeToString(deterministic=True)

    def snapshot(self) -> bytes:
        """Return the whole state, deterministically encoded."""
        return encode_image(self.image, self._groups)

    def restore(self, index: int, data: bytes) -> None:
        """Replace the whole state. Raises SnapshotError, on which the node stops."""
        del index  # the image carries its own version: entries that are no commands do not count
        self.image = decode_image(data)
        self._publish(self.image)
