"""Changes of groups on their way into commands: as many in one as its size allows. Pure."""

from collections.abc import Iterable, Iterator

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

FRAME_BYTES = 1024
"""More than what is around a change in the log of consensus."""


def commands_for(changes: Iterable[pb.GroupChange], command_bytes: int) -> Iterator[pb.AlterGroups]:
    """Yield the commands, in order, of at most `command_bytes`; small changes are gathered up to half of that.

    Raises INVALID_ARGUMENT, before the first, for a change that fits in none.
    """
    most = command_bytes - FRAME_BYTES
    sized = [(change, change.ByteSize()) for change in changes]
    for change, size in sized:
        if size > most:
            text = f"a change of group {change.group_id[:100]!r} has {size} bytes, {most} may be"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
    command, gathered = pb.AlterGroups(), 0
    for change, size in sized:
        if command.changes and gathered + size > command_bytes // 2:
            yield command
            command, gathered = pb.AlterGroups(), 0
        command.changes.append(change)
        gathered += size
    if command.changes:
        yield command
