"""What a leader knows of its producers, and how it judges a batch by it (DESIGN rule 14), as a small reference."""

from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.protocol.batch import NO_PRODUCER, BatchHeader, advance_sequence
from penstock.protocol.reasons import Reason


class Accepted(NamedTuple):
    """A new batch."""


class Duplicate(NamedTuple):
    """The batch is in the log, at this offset."""

    base_offset: int


@dataclass
class _Producer:
    epoch: int
    last_sequence: int
    batches: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=5))


@dataclass
class ProducerStates:
    """The producers of one partition."""

    known: dict[int, _Producer] = field(default_factory=dict)

    def check(self, header: BatchHeader) -> Accepted | Duplicate | Reason:
        if header.producer_id == NO_PRODUCER:
            return Accepted()
        state = self.known.get(header.producer_id)
        if state is None:
            return Accepted() if header.base_sequence == 0 else Reason.UNKNOWN_PRODUCER
        if header.producer_epoch < state.epoch:
            return Reason.PRODUCER_FENCED
        if header.producer_epoch > state.epoch:
            return Accepted() if header.base_sequence == 0 else Reason.OUT_OF_ORDER_SEQUENCE
        for first, last, base_offset in state.batches:
            if (first, last) == (header.base_sequence, header.last_sequence):
                return Duplicate(base_offset)
        if header.base_sequence == advance_sequence(state.last_sequence, 1):
            return Accepted()
        return Reason.OUT_OF_ORDER_SEQUENCE

    def advance(self, header: BatchHeader, base_offset: int) -> None:
        if header.producer_id == NO_PRODUCER:
            return
        state = self.known.get(header.producer_id)
        if state is None or state.epoch != header.producer_epoch:
            state = self.known[header.producer_id] = _Producer(header.producer_epoch, -1)
        state.last_sequence = header.last_sequence
        state.batches.append((header.base_sequence, header.last_sequence, base_offset))

    def copy(self) -> "ProducerStates":
        return deepcopy(self)
