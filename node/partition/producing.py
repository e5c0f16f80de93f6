"""Idempotent producers of one partition as its leader knows them: the log's durable state, and in front of it what
was appended but is not durable yet (rules 13, 14).

Invariant: a state that counts a batch above the durable end is never dropped but by `clear`.
"""

from collections.abc import Callable

from penstock.protocol.batch import NO_PRODUCER, BatchHeader
from penstock.storage import LogBatch
from penstock.storage.producers import ACCEPT, ProducerState, Verdict, advance, check

PRODUCERS_IN_MEMORY = 4_096
"""Per partition; more are read from the log again when they come back."""


class Producers:
    """Checks and notes batches in log order."""

    def __init__(self, load: Callable[[int], ProducerState | None]) -> None:
        self._load = load
        self._states: dict[int, tuple[ProducerState | None, int]] = {}
        """State and the end offset of the last batch that it counts; least recently used first."""

    def check(self, header: BatchHeader) -> Verdict:
        """What to do with a batch that is about to be appended."""
        if header.producer_id == NO_PRODUCER:
            return ACCEPT
        return check(self._state(header.producer_id), header)

    def note(self, batch: LogBatch, durable_end: int) -> None:
        """The batch was appended."""
        producer_id = batch.header.producer_id
        if producer_id == NO_PRODUCER:
            return
        state = advance(
            self._state(producer_id), batch.header, batch.base_offset, batch.append_time_ms, batch.last_offset
        )
        self._states[producer_id] = (state, batch.last_offset + 1)
        self._shorten(durable_end)

    def clear(self) -> None:
        """The role changed or the log was cut: the log's own state is the truth again (rule 13)."""
        self._states.clear()

    def _state(self, producer_id: int) -> ProducerState | None:
        known = self._states.pop(producer_id, None) or (self._load(producer_id), 0)
        self._states[producer_id] = known
        return known[0]

    def _shorten(self, durable_end: int) -> None:
        while len(self._states) > PRODUCERS_IN_MEMORY:
            oldest = next(iter(self._states))
            if self._states[oldest][1] > durable_end:
                return
            del self._states[oldest]
