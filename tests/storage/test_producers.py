"""What is known of idempotent producers, and what it says of a batch (rule 14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.batch import MAX_SEQUENCE, BatchHeader, NewRecord, ProducerStamp, build, header_of, request_stamp
from penstock.storage.producers import (
    ACCEPT,
    REMEMBERED_BATCHES,
    Duplicate,
    ProducerBatch,
    ProducerState,
    Refusal,
    advance,
    check,
)


def header(producer_id: int, epoch: int, sequence: int, count: int = 1) -> BatchHeader:
    records = [NewRecord(None, b"", 0)] * count
    return header_of(build(records, stamp=ProducerStamp(producer_id, epoch, sequence)))


def after(*batches: tuple[int, int, int]) -> ProducerState:
    """State after batches of (epoch, sequence, count) of producer 7, at consecutive offsets."""
    state, offset = None, 100
    for epoch, sequence, count in batches:
        state = advance(state, header(7, epoch, sequence, count), offset, offset * 10)
        offset += count
    assert state is not None
    return state


def test_rule_14_an_unknown_producer_starts_at_0() -> None:
    assert check(None, header(7, 0, 0)) == ACCEPT
    assert check(None, header(7, 3, 0)) == ACCEPT


@pytest.mark.parametrize("sequence", [1, 5, MAX_SEQUENCE])
def test_rule_14_an_unknown_producer_in_the_middle_is_refused(sequence: int) -> None:
    assert check(None, header(7, 0, sequence)) is Refusal.UNKNOWN_PRODUCER


def test_rule_14_the_next_sequence_is_accepted() -> None:
    state = after((0, 0, 3), (0, 3, 2))
    assert check(state, header(7, 0, 5)) == ACCEPT
    assert check(state, header(7, 0, 4)) is Refusal.OUT_OF_ORDER
    assert check(state, header(7, 0, 6)) is Refusal.OUT_OF_ORDER


def test_rule_14_a_duplicate_has_the_originals_place() -> None:
    state = after((0, 0, 3), (0, 3, 2), (0, 5, 1))
    assert check(state, header(7, 0, 0, 3)) == Duplicate(100, 102)
    assert check(state, header(7, 0, 3, 2)) == Duplicate(103, 104)
    assert check(state, header(7, 0, 5, 1)) == Duplicate(105, 105)


def test_a_retry_of_another_length_is_no_duplicate() -> None:
    state = after((0, 0, 3), (0, 3, 2))
    assert check(state, header(7, 0, 3, 1)) is Refusal.OUT_OF_ORDER
    assert check(state, header(7, 0, 3, 3)) is Refusal.OUT_OF_ORDER


def test_five_batches_are_remembered() -> None:
    state = after(*((0, sequence, 1) for sequence in range(8)))
    assert REMEMBERED_BATCHES == 5
    assert [check(state, header(7, 0, sequence)) for sequence in range(3, 8)] == [
        Duplicate(100 + sequence, 100 + sequence) for sequence in range(3, 8)
    ]
    assert check(state, header(7, 0, 2)) is Refusal.OUT_OF_ORDER


def test_rule_14_an_older_epoch_is_fenced() -> None:
    state = after((3, 0, 1))
    assert check(state, header(7, 2, 0)) is Refusal.FENCED
    assert check(state, header(7, 2, 1)) is Refusal.FENCED


def test_a_newer_epoch_starts_at_0() -> None:
    state = after((3, 0, 1), (3, 1, 1))
    assert check(state, header(7, 4, 0)) == ACCEPT
    assert check(state, header(7, 4, 2)) is Refusal.OUT_OF_ORDER
    bumped = advance(state, header(7, 4, 0), 200, 1)
    assert bumped == ProducerState(4, (ProducerBatch(0, 0, 200, 200),), 1)


def test_sequences_wrap() -> None:
    state = after((0, MAX_SEQUENCE - 1, 4))
    assert state.batches[-1].last_sequence == 1
    assert check(state, header(7, 0, 2)) == ACCEPT
    assert check(state, header(7, 0, MAX_SEQUENCE - 1, 4)) == Duplicate(100, 103)


def test_the_time_is_that_of_the_last_append() -> None:
    assert after((0, 0, 1), (0, 1, 1)).timestamp_ms == 1010


def test_rule_25_a_request_is_its_one_batch() -> None:
    first = header(*request_stamp("order 1"), count=2)
    assert check(None, first) == ACCEPT
    state = advance(None, first, 50, 9)
    assert check(state, first) == Duplicate(50, 51)
    stamp = request_stamp("order 1")
    for other in (
        ProducerStamp(stamp.producer_id, stamp.producer_epoch ^ 1, stamp.base_sequence),
        ProducerStamp(stamp.producer_id, stamp.producer_epoch, stamp.base_sequence ^ 1),
    ):
        assert check(state, header(*other)) == ACCEPT
        assert len(advance(state, header(*other), 60, 9).batches) == 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, MAX_SEQUENCE))
def test_a_producer_that_counts_on_is_always_accepted(counts: list[int], start: int) -> None:
    state, sequence, offset = advance(None, header(7, 0, start, counts[0]), 0, 0), start + counts[0], counts[0]
    for count in counts[1:]:
        new = header(7, 0, sequence % (MAX_SEQUENCE + 1), count)
        assert check(state, new) == ACCEPT
        state = advance(state, new, offset, 0)
        assert check(state, new) == Duplicate(offset, offset + count - 1)
        sequence, offset = sequence + count, offset + count
    assert len(state.batches) == min(5, len(counts))
