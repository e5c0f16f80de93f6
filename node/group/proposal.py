"""The one change of a group that is on its way to the metadata. Pure."""

from collections.abc import Iterable

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

SHOWN_WITHIN_MS = 1_000
"""After an answer the metadata is to show another group; if it does not for so long, decide again on this one."""
RETRY_MS = 100
"""Before deciding again where the fate of a change is not known."""

_AWAITED = frozenset({pb.REFUSAL_UNSPECIFIED, pb.REFUSAL_STALE})
"""After these answers another group is to come."""


class Proposal:
    """Begun, answered, and then either the group has changed or some time passes before the next."""

    def __init__(self) -> None:
        self.hold_ms = 0
        """Nothing is decided before."""
        self.is_under_way = False
        self._is_over = False
        """Another coordinates the group, or will."""
        self._has_moved = False
        """The metadata has shown another group since it began."""
        self._joins: tuple[str, ...] = ()

    def is_possible(self, now_ms: int) -> bool:
        """Whether a change may be proposed now."""
        return not self._is_over and not self.is_under_way and now_ms >= self.hold_ms

    def begin(self, joins: Iterable[str]) -> None:
        """A change goes; these would be members by it."""
        self.is_under_way, self._has_moved = True, False
        self._joins = tuple(joins)

    def on_group(self) -> None:
        """The metadata shows another group."""
        self._has_moved = True
        self.hold_ms = 0

    def end(self, result: pb.ChangeResult | None, now_ms: int) -> PenstockError | None:
        """It was answered, or not (None); returns what it was refused for, for good."""
        self.is_under_way = False
        refusal = None if result is None else result.refusal
        self._is_over = self._is_over or refusal == pb.REFUSAL_NOT_COORDINATOR
        if not self._has_moved:
            self.hold_ms = now_ms + (RETRY_MS if refusal is None else SHOWN_WITHIN_MS)
        if result is None or refusal in _AWAITED or self._is_over:
            return None
        if refusal == pb.REFUSAL_LIMIT:
            return PenstockError(Reason.GROUP_FULL, result.detail)
        return PenstockError(Reason.INTERNAL, f"the group could not be changed: {result.detail}")

    def take_joins(self) -> tuple[str, ...]:
        """Return who would have been members by the last change, once."""
        joins, self._joins = self._joins, ()
        return joins
