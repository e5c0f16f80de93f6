"""What a log knows of idempotent producers, and what that says of a new batch. Pure.

The leader asks before it appends, over its memory; the writer advances the state in the append's transaction, on every
replica alike (rule 13). Follows Kafka's idempotent producer (KIP-98) with the last five batches kept.
"""

from enum import Enum
from typing import NamedTuple

from penstock.protocol.batch import NO_PRODUCER, BatchHeader, advance_sequence

REMEMBERED_BATCHES = 5
"""A producer may have this many batches in flight."""


class ProducerBatch(NamedTuple):
    """Where a batch of the producer is."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int


class ProducerState(NamedTuple):
    """A producer's epoch, its latest batches (oldest first), and when it last appended (ms, leader's clock)."""

    producer_epoch: int
    batches: tuple[ProducerBatch, ...]
    timestamp_ms: int


class Refusal(Enum):
    """Why a batch may not be appended."""

    OUT_OF_ORDER = "out_of_order"  # batches before it are missing
    UNKNOWN_PRODUCER = "unknown_producer"  # nothing is known of the producer, and the batch is not its first
    FENCED = "fenced"  # a newer epoch of the producer has written


class Accept(NamedTuple):
    """The batch continues what is known."""


class Duplicate(NamedTuple):
    """The batch is in the log already, here."""

    base_offset: int
    last_offset: int


Verdict = Accept | Duplicate | Refusal
ACCEPT = Accept()


def check(state: ProducerState | None, header: BatchHeader) -> Verdict:
    """Judge a batch of a producer (`header.producer_id` is not NO_PRODUCER) by what is known of it."""
    if header.producer_id < NO_PRODUCER:
        return _check_request(state, header)
    if state is None:
        return ACCEPT if header.base_sequence == 0 else Refusal.UNKNOWN_PRODUCER
    if header.producer_epoch < state.producer_epoch:
        return Refusal.FENCED
    if header.producer_epoch > state.producer_epoch:
        return ACCEPT if header.base_sequence == 0 else Refusal.OUT_OF_ORDER
    for batch in state.batches:
        if batch.base_sequence == header.base_sequence and batch.last_sequence == header.last_sequence:
            return Duplicate(batch.base_offset, batch.last_offset)
    if not state.batches:
        return ACCEPT if header.base_sequence == 0 else Refusal.UNKNOWN_PRODUCER
    expected = advance_sequence(state.batches[-1].last_sequence, 1)
    return ACCEPT if header.base_sequence == expected else Refusal.OUT_OF_ORDER


def _check_request(state: ProducerState | None, header: BatchHeader) -> Verdict:
    """A request_id's one batch: epoch and sequence are part of its identity (docs/adr/0003)."""
    if state is not None and state.producer_epoch == header.producer_epoch and state.batches:
        batch = state.batches[-1]
        if batch.base_sequence == header.base_sequence:
            return Duplicate(batch.base_offset, batch.last_offset)
    return ACCEPT


def advance(
    state: ProducerState | None,
    header: BatchHeader,
    base_offset: int,
    timestamp_ms: int,
    last_offset: int | None = None,
) -> ProducerState:
    """Return the state after the batch was appended at `base_offset`. Replicas call it without `check`.

    `last_offset` where compaction may have taken records out of the batch: it leaves its place, and so its sequence.
    """
    if last_offset is None:
        last_offset = base_offset + header.record_count - 1
    last_sequence = advance_sequence(header.base_sequence, last_offset - base_offset)
    batch = ProducerBatch(header.base_sequence, last_sequence, base_offset, last_offset)
    if state is None or state.producer_epoch != header.producer_epoch or header.producer_id < NO_PRODUCER:
        return ProducerState(header.producer_epoch, (batch,), timestamp_ms)
    return ProducerState(header.producer_epoch, (*state.batches, batch)[-REMEMBERED_BATCHES:], timestamp_ms)
