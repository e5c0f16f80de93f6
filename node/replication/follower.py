"""The follower's side of one partition in one leadership. A pure core.

Owns: the session with the leader and how this log is brought to agree with the leader's.
Invariants: what is sent as fetch offset is durable (rule 10); the log is cut only where leader epochs say so, never to
the high watermark (rule 1); a message of another session changes nothing (rule 11).

    state      hears leader   left by
    IDLE       no             connect -> OPENING or FETCHING
    OPENING    no             the last write of an earlier session is done -> FETCHING
    FETCHING   yes            divergence, seed -> CUTTING; a fault or failed append -> IDLE
    CUTTING    no             the cut is durable -> FETCHING; it failed -> IDLE
Each state goes to IDLE when its session breaks.
"""

from collections.abc import Sequence
from enum import Enum

from penstock.node.replication.epochs import EpochTable, LogBounds
from penstock.node.replication.events import (
    Leave,
    Outputs,
    Position,
    SendFetch,
    SendOpen,
    SessionKey,
    Span,
    WriteAppend,
    WriteReset,
    WriteStart,
    WriteTruncate,
)


class FollowerState(Enum):
    """See the module's table."""

    IDLE = "idle"
    OPENING = "opening"
    FETCHING = "fetching"
    CUTTING = "cutting"


class FollowerCore:
    """Created when the epoch's ActIn is durable and every earlier write is done."""

    def __init__(self, leader: int, leader_epoch: int, log: LogBounds) -> None:
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.state = FollowerState.IDLE
        self.session: SessionKey | None = None
        self._log = log
        self._writes = 0
        self._sent_end = -1
        self._leader_mark = -1
        """The leader's high watermark in this session; above our log end while we are behind."""
        self.passed_offset = 0
        """What the leader says that every replica has, in this session (rule 19)."""
        self._leader_start = -1
        """The leader's log start in this session; above our high watermark while we are behind."""
        self._asked_start = -1
        self._seed: tuple[int, tuple[tuple[int, int], ...], int] | None = None
        self._cut_end: int | None = None

    # ---- the session

    def connect(self, session: SessionKey) -> Outputs:
        """A stream to the leader is there and this is the partition's new place in it."""
        self.session = session
        self.state = FollowerState.OPENING
        self._leader_mark = self._leader_start = -1
        self.passed_offset = 0
        return self._open_if_drained()

    def disconnect(self) -> Outputs:
        """The stream broke or is being closed."""
        self.session = None
        self.state = FollowerState.IDLE
        self.passed_offset = 0
        return []

    def on_refused(self, session: SessionKey) -> Outputs:
        """The leader refused the open; its view or ours is behind."""
        return self._leave() if self._is_current(session) else []

    def _open_if_drained(self) -> Outputs:
        if self._writes or self.session is None:
            return []
        self.state = FollowerState.FETCHING
        return [SendOpen(self.session, self._position())]

    def _leave(self) -> Outputs:
        if self.session is None:
            return []
        session = self.session
        self.disconnect()
        return [Leave(session, retry=True)]

    def _is_current(self, session: SessionKey) -> bool:
        """Rule 11: of the present session."""
        return session == self.session

    def _hears(self, session: SessionKey) -> bool:
        return self._is_current(session) and self.state is FollowerState.FETCHING

    # ---- fetching

    def _position(self) -> Position:
        self._sent_end = end = self._ackable_end()
        log = self._log
        return Position(self.leader_epoch, end, log.epochs.epoch_below(end), log.log_start_offset, log.tombstones_below)

    def _ackable_end(self) -> int:
        """Rule 10: durable only."""
        return self._log.durable_end

    def _acknowledge(self) -> Outputs:
        if self.session is None or self.state is not FollowerState.FETCHING or self._ackable_end() == self._sent_end:
            return []
        return [SendFetch(self.session, self._position())]

    # ---- what the leader says

    def on_batches(self, session: SessionKey, spans: Sequence[Span]) -> Outputs:
        """Batches arrived: WriteAppend means all of them are to be written."""
        if not self._hears(session):
            return []
        if not self._continues(spans):
            return self._leave()
        for span in spans:
            self._log.epochs.append(span.leader_epoch, span.base_offset, span.end_offset)
        self._writes += 1
        self._follow_mark()
        return [WriteAppend(self.leader_epoch), *self._follow_start()]

    def _continues(self, spans: Sequence[Span]) -> bool:
        """Whether the batches tile on from the log end with epochs that do not fall nor pass the leader's."""
        end = self._log.log_end_offset
        epoch = self._log.epochs.epoch_below(end)
        for span in spans:
            if span.base_offset != end or span.end_offset <= end or not epoch <= span.leader_epoch <= self.leader_epoch:
                return False
            end, epoch = span.end_offset, span.leader_epoch
        return True

    def on_progress(
        self, session: SessionKey, high_watermark: int, log_start_offset: int, passed_offset: int = 0
    ) -> Outputs:
        """The leader's high watermark and log start, and what every replica has."""
        if not self._hears(session):
            return []
        self._leader_mark = max(self._leader_mark, high_watermark)
        self._leader_start = max(self._leader_start, log_start_offset)
        self._follow_mark()
        self.passed_offset = passed_offset
        return self._follow_start()

    def _follow_start(self) -> Outputs:
        """Rule 22: begin where the leader's log does, as far as this one has what is committed."""
        log = self._log
        start = min(self._leader_start, log.high_watermark)
        if start <= max(log.log_start_offset, self._asked_start):
            return []
        self._asked_start = start
        return [WriteStart(self.leader_epoch, start)]

    def on_start_moved(self) -> Outputs:
        """The log bounds' start is durable, or could not be moved: the leader is told, and may ask again."""
        self._asked_start = -1
        if self.session is None or self.state is not FollowerState.FETCHING:
            return []
        return [SendFetch(self.session, self._position())]

    def _follow_mark(self) -> None:
        log = self._log
        log.high_watermark = max(log.high_watermark, min(self._leader_mark, log.log_end_offset))

    def on_divergence(self, session: SessionKey, leader_epoch: int, end_offset: int) -> Outputs:
        """The logs differ below what was fetched: cut, and ask again until they agree (rules 1, 2)."""
        if not self._hears(session):
            return []
        end = self._cut_point(leader_epoch, end_offset)
        self.state = FollowerState.CUTTING
        self._writes += 1
        self._cut_end = end
        return [WriteTruncate(self.leader_epoch, end)]

    def _cut_point(self, leader_epoch: int, end_offset: int) -> int:
        """Rule 2: the lesser of both ends of that epoch."""
        own = self._log.epochs.end_of(leader_epoch)
        own_end = self._log.first_offset if own is None else own.end_offset
        return max(self._log.first_offset, min(end_offset, own_end, self._log.log_end_offset))

    def on_seed(
        self, session: SessionKey, start_offset: int, epochs: tuple[tuple[int, int], ...], tombstones_below: int = 0
    ) -> Outputs:
        """Nothing here can be compared with the leader's log: start anew where it starts (rules 14, 28)."""
        if not self._hears(session):
            return []
        self.state = FollowerState.CUTTING
        self._writes += 1
        self._seed = (start_offset, epochs, tombstones_below)
        return [WriteReset(self.leader_epoch, start_offset)]

    # ---- outcomes of writes, in their order

    def on_appended(self, count: int) -> Outputs:
        """`count` appends are durable; the log bounds' durable_end moved."""
        self._writes -= count
        return self._after_write() or self._acknowledge()

    def on_append_failed(self, count: int) -> Outputs:
        """`count` appends failed; the log bounds were cut to what is durable."""
        self._writes -= count
        if self.state in {FollowerState.IDLE, FollowerState.OPENING}:
            return self._after_write()
        return self._leave()

    def on_cut(self, *, succeeded: bool, end_offset: int | None = None) -> Outputs:
        """The truncation or reset is durable, or it failed and the log is as it was.

        `end_offset`: where the log ends now; lower than asked for where compaction had made one batch of several.
        """
        self._writes -= 1
        cut_end, seed = self._cut_end, self._seed
        self._cut_end = self._seed = None
        if not succeeded:
            return self._leave() if self.state is FollowerState.CUTTING else self._after_write()
        if seed is not None:
            self._start_anew(*seed)
        elif cut_end is not None:
            self._log.cut(cut_end if end_offset is None else min(cut_end, end_offset))
        if self.state is FollowerState.CUTTING and self.session is not None:
            self.state = FollowerState.FETCHING
            return [SendFetch(self.session, self._position())]
        return self._after_write()

    def _start_anew(self, start_offset: int, epochs: tuple[tuple[int, int], ...], tombstones_below: int) -> None:
        log = self._log
        log.epochs = EpochTable(epochs, start_offset)
        log.first_offset = log.log_start_offset = log.durable_end = log.high_watermark = start_offset
        log.tombstones_below = tombstones_below

    def _after_write(self) -> Outputs:
        return self._open_if_drained() if self.state is FollowerState.OPENING else []
