"""Changes of groups on their way into commands: as many in one as its size allows. Pure."""

from collections.abc import Iterable, Iterator

from penstock.internal.v1 import metadata_pb2 as pb

FRAME_BYTES = 1024
"""More than what is around a change in the log of consensus."""


def too_large(change: pb.GroupChange, command_bytes: int) -> pb.ChangeResult | None:
    """Return the refusal of a change that fits in no command of `command_bytes`; None: it fits."""
    size, most = change.ByteSize(), command_bytes - FRAME_BYTES
    if size <= most:
        return None
    detail = f"a change of group {change.group_id[:100]!r} has {size} bytes, {most} may be"
    return pb.ChangeResult(refusal=pb.REFUSAL_LIMIT, detail=detail)


def commands_for(changes: Iterable[pb.GroupChange], command_bytes: int) -> Iterator[pb.AlterGroups]:
    """Yield the commands, in order, for changes that fit; small ones are gathered up to half of `command_bytes`."""
    command, gathered = pb.AlterGroups(), 0
    for change in changes:
        size = change.ByteSize()
        if command.changes and gathered + size > command_bytes // 2:
            yield command
            command, gathered = pb.AlterGroups(), 0
        command.changes.append(change)
        gathered += size
    if command.changes:
        yield command
