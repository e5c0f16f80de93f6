"""When to register, when to heartbeat, and whether this node may serve: the pure core of a session.

Owns: node_epoch, and how long ago the controller was surely heard. Invariants: one request is under way at most;
contact counts from the *sending* of the request that was answered, so this node's session ends no later than that
controller's idea of it (a deposed one may answer for a moment: nothing rests on sessions that epochs do not guard too).
Serving needs all of: registered, the registration in this node's view (rule 26), not fenced there, the controller heard
within the session. Times are monotonic milliseconds (rule 30).
"""

from dataclasses import dataclass
from typing import NamedTuple

RETRY_MS = 50
"""Between an attempt that did not reach the controller and the next."""
REFUSED_RETRY_MS = 1_000
"""Between an attempt that the controller refused and the next."""


@dataclass(frozen=True, slots=True)
class SendRegister:
    """Register with the controller."""


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Send a heartbeat. `draining`: this node wants to stop, its leaderships are to move."""

    node_epoch: int
    draining: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """A registration was answered: the start ids before the present one may be forgotten (rule 27)."""

    node_epoch: int


Output = SendRegister | SendHeartbeat | Accepted


class InView(NamedTuple):
    """What this node's view says of this node."""

    node_epoch: int
    fenced: bool


class SessionCore:
    """Events in, outputs out; `serving` is a question of the moment."""

    def __init__(self, session_timeout_ms: int, heartbeat_interval_ms: int) -> None:
        self._session_timeout_ms = session_timeout_ms
        self._heartbeat_interval_ms = heartbeat_interval_ms
        self.node_epoch: int | None = None
        """Of the last answered registration."""
        self.leaderships: int | None = None
        """While draining: how many could still move, as the controller counts; None: not told yet."""
        self.draining = False
        self._asked_to_drain = False
        """The heartbeat under way, or the last one, said so."""
        self.left = False
        """Said goodbye: nothing is sent any more."""
        self._must_register = True
        self._heard_ms: int | None = None
        self._sent_ms: int | None = None
        self._due_ms: int | None = None
        self._is_urgent = False
        self._in_view: InView | None = None

    # ---- questions

    @property
    def is_registered(self) -> bool:
        """Whether the last registration is, for all this node knows, still good."""
        return self.node_epoch is not None and not self._must_register

    @property
    def is_waiting(self) -> bool:
        """Whether a request is under way."""
        return self._sent_ms is not None

    def is_serving(self, now_ms: int) -> bool:
        """Whether this node may lead, follow and answer (rules 26 and DESIGN section 5)."""
        return self._may_serve() and self._is_heard(now_ms)

    def next_wake_ms(self, now_ms: int) -> int | None:
        """When `tick` has something to do, or serving ends, next; None: when an event comes."""
        times = []
        if not self.is_waiting and not self.left:
            times.append(self._due_ms or 0)
        if self._heard_ms is not None and self.is_serving(now_ms):
            times.append(self._heard_ms + self._session_timeout_ms)
        return min(times, default=None)

    def _may_serve(self) -> bool:
        return (
            self.is_registered
            and not self.left
            and self._in_view is not None
            and self._in_view == (self.node_epoch, False)
        )

    def _is_heard(self, now_ms: int) -> bool:
        return self._heard_ms is not None and now_ms < self._heard_ms + self._session_timeout_ms

    # ---- events

    def tick(self, now_ms: int) -> list[Output]:
        """Time passed."""
        if self.left or self.is_waiting or (self._due_ms is not None and now_ms < self._due_ms):
            return []
        self._sent_ms = now_ms
        if self.node_epoch is None or self._must_register:
            return [SendRegister()]
        self._asked_to_drain = self.draining
        return [SendHeartbeat(self.node_epoch, self.draining)]

    def on_registered(self, node_epoch: int, now_ms: int) -> list[Output]:
        """The registration was answered."""
        self._answered(now_ms)
        self.node_epoch = node_epoch
        self._must_register = False
        return [Accepted(node_epoch)]

    def on_heartbeat(self, now_ms: int, leaderships: int, *, known: bool) -> None:
        """The heartbeat was answered. `known`: this node_epoch is the node's present one, and not fenced."""
        self._answered(now_ms)
        if not known:
            self._register_again(now_ms)
        if self._asked_to_drain:
            self.leaderships = leaderships if known else 0

    def on_failure(self, now_ms: int, *, refused: bool = False) -> None:
        """The request failed, or its fate is unknown. Both kinds may be repeated: registering is compare-and-set."""
        self._sent_ms = None
        self._is_urgent = False
        self._due_ms = now_ms + (REFUSED_RETRY_MS if refused else RETRY_MS)

    def on_view(self, in_view: InView | None, now_ms: int) -> None:
        """The view changed."""
        self._in_view = in_view
        if in_view is not None and in_view == (self.node_epoch, True):
            self._register_again(now_ms)

    def hurry(self, now_ms: int) -> None:
        """Something happened that makes contact urgent; a request under way is followed by the next at once."""
        self._due_ms = now_ms
        self._is_urgent = self.is_waiting

    def drain(self, now_ms: int) -> None:
        """This node wants to stop."""
        self.draining = True
        self.hurry(now_ms)

    def leave(self) -> None:
        """This node serves no longer and says nothing more."""
        self.left = True

    def _answered(self, now_ms: int) -> None:
        sent_ms = now_ms if self._sent_ms is None else self._sent_ms
        self._heard_ms, self._sent_ms = sent_ms, None
        self._due_ms = now_ms if self._is_urgent else sent_ms + self._heartbeat_interval_ms
        self._is_urgent = False

    def _register_again(self, now_ms: int) -> None:
        if not self.draining:  # who wants to stop has nothing to come back for
            self._must_register = True
            self._due_ms = now_ms
