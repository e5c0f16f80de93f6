"""What a leader knows of one follower, in one leadership."""

from dataclasses import dataclass

from penstock.node.replication.events import SessionKey

NO_SESSION = SessionKey(-1, -1, -1)


@dataclass(slots=True)
class Progress:
    """Rule 11: all but the lag window belongs to one session and starts anew with the next."""

    window_ms: int
    """When the lag window began (rule 29)."""
    window_end: int
    """Log end that stood at the window's start."""
    session: SessionKey = NO_SESSION
    aligned: bool = False
    """The leader's lookup of the follower's last epoch agreed. Until then nothing counts and nothing is sent."""
    acked: int = -1
    """Durable log end of the follower; means something only while aligned."""
    next_offset: int = 0
    """First offset not yet handed to the follower's stream."""
    log_start_offset: int = -1
    """Durable log start of the follower."""
    unreachable: bool = False
    """Its connection is refused."""

    def open(self, session: SessionKey) -> None:
        """Begin a session: what an earlier one said is forgotten."""
        self.session = session
        self.aligned = False
        self.acked = -1
        self.next_offset = 0
        self.log_start_offset = -1
        self.unreachable = False

    def count(self, fetch_offset: int) -> bool:
        """Take an agreed fetch offset as acknowledgement; whether the logs were not known to agree before."""
        first = not self.aligned
        self.aligned = True
        self.acked = fetch_offset
        self.next_offset = fetch_offset if first else max(self.next_offset, fetch_offset)
        return first

    def lags(self, now_ms: int, log_end: int, lag_max_ms: int) -> bool:
        """Rule 29: for `lag_max_ms` it never reached the log end that stood at the window's start."""
        if self.unreachable:
            return True
        if self.aligned and self.acked >= self.window_end:
            self.window_end = log_end
            self.window_ms = now_ms
            return False
        return now_ms - self.window_ms >= lag_max_ms
