"""Which records compaction leaves, and in what batches: the pure part, on made-up logs."""

from collections.abc import Iterable, Sequence

import pytest

from penstock.protocol.batch import NewRecord, ProducerStamp, build, header_of, parse, read
from penstock.storage import LogBatch, layout
from penstock.storage.compaction import (
    DIGEST_ABOVE,
    ENTRY_BYTES,
    MERGED_BATCHES,
    MERGED_BYTES,
    CompactionPolicy,
    Rewriter,
    Step,
    StoredRow,
    Survey,
    begin_at,
)
from penstock.storage.layout import NO_TIME
from penstock.v1 import common_pb2, record_pb2

DATA = 3
RETENTION_MS = 1_000
FOREVER = 10**9
Entry = tuple[bytes | None, bytes | None]


def log(*batches: Sequence[Entry], epoch: int = 0, start: int = 0, stamped: bool = False) -> list[LogBatch]:
    """Batches one after the other; record i of all has the time 100 + i."""
    made = []
    for number, entries in enumerate(batches):
        records = [NewRecord(key, value, 100 + start + at) for at, (key, value) in enumerate(entries)]
        stamp = ProducerStamp(7, 0, start) if stamped else ProducerStamp(-1, -1, -1)
        message = build(records, stamp=stamp)
        end = start + len(entries)
        header = header_of(message)
        made.append(LogBatch(start, end - 1, epoch, 5_000 + number, header, message.SerializeToString()))
        start = end
    return made


def rows(batches: Iterable[LogBatch], since: int = NO_TIME, pinned: Iterable[int] = ()) -> list[StoredRow]:
    known = set(pinned)
    return [StoredRow(batch, 0, since, batch.base_offset in known) for batch in batches]


def compacted(
    stored: Sequence[StoredRow],
    *,
    now_ms: int = 0,
    passed: int = FOREVER,
    log_start: int = 0,
    survey: Survey | None = None,
) -> tuple[list[StoredRow], list[Step]]:
    """The log after all steps, and the steps."""
    if survey is None:
        survey = Survey(2**20)
        assert all(survey.add(row.batch) for row in stored)
    rewriter = Rewriter(DATA, log_start, survey, CompactionPolicy(now_ms, RETENTION_MS, passed))
    steps = [step for row in stored for step in rewriter.take(row)] + list(rewriter.finish())
    left = list(stored)
    for step in steps:
        new = []
        for base, packed in step.rows:
            key = layout.offset_key(DATA, base)
            batch, head = layout.unpack_whole(key, memoryview(packed))
            new.append(StoredRow(batch, head.position, head.tombstones_since_ms, pinned=False))
        before = [row for row in left if row.batch.base_offset < step.start]
        left = before + new + [row for row in left if row.batch.base_offset >= step.end]
    assert tiles(left) == tiles(list(stored))[:1] + tiles(left)[1:]
    return left, steps


def tiles(stored: Sequence[StoredRow]) -> list[tuple[int, int]]:
    """Whole range, after checking that the batches tile it."""
    expected = stored[0].batch.base_offset
    for row in stored:
        assert row.batch.base_offset == expected
        expected = row.batch.last_offset + 1
    return [(stored[0].batch.base_offset, expected)]


def content(stored: Iterable[StoredRow]) -> dict[int, tuple[bytes | None, bytes | None, int]]:
    """Key, value and time of each record, by offset; each batch is whole and sealed."""
    found = {}
    for row in stored:
        batch = row.batch
        if not batch.header.record_count:
            continue
        header, message = parse(batch.payload)
        assert header == batch.header
        for record in read(message):
            time_ms = header.base_timestamp_ms + record.timestamp_delta_ms
            if batch.timestamp_type == common_pb2.TIMESTAMP_TYPE_APPEND:
                time_ms = batch.append_time_ms
            key = record.key if record.HasField("key") else None
            value = record.value if record.HasField("value") else None
            found[batch.base_offset + record.offset_delta] = (key, value, time_ms)
    return found


def test_the_latest_of_each_key_stays_at_its_offset_and_time() -> None:
    left, _ = compacted(rows(log([(b"a", b"1"), (b"b", b"1")], [(b"a", b"2"), (b"c", b"1")], [(b"b", b"2")])))
    assert content(left) == {2: (b"a", b"2", 102), 3: (b"c", b"1", 103), 4: (b"b", b"2", 104)}


def test_records_without_a_key_stay() -> None:
    left, steps = compacted(rows(log([(None, b"1"), (b"a", b"1")], [(None, b"2"), (b"a", b"2")])))
    assert sorted(content(left)) == [0, 2, 3]
    assert len(steps) == 1


def test_headers_and_empty_values_stay_as_they_are() -> None:
    message = build(
        [NewRecord(b"a", b"", 1, [("h", None), ("h", b"x")]), NewRecord(b"b", b"gone", 2), NewRecord(b"b", b"", 3)]
    )
    batch = LogBatch(0, 2, 0, 9, header_of(message), message.SerializeToString())
    left, _ = compacted(rows([batch]))
    records = list(read(parse(left[0].batch.payload)[1]))
    assert [(record.key, record.HasField("value"), record.offset_delta) for record in records] == [
        (b"a", True, 0),
        (b"b", True, 2),
    ]
    assert [(header.key, header.HasField("value")) for header in records[0].headers] == [("h", False), ("h", True)]


def test_a_log_without_anything_to_remove_is_left_alone() -> None:
    assert compacted(rows(log([(b"a", b"1")], [(b"b", b"1")], [(b"c", b"1")])))[1] == []
    left, _ = compacted(rows(log([(b"a", b"1")] * 3, [(b"a", b"2")])))
    assert compacted(left)[1] == [], "compacted again it does not change"


def test_emptied_batches_are_merged_and_the_range_is_kept() -> None:
    left, steps = compacted(rows(log(*[[(b"a", b"%d" % at)] for at in range(50)])))
    assert len(left) == 1
    assert (left[0].batch.base_offset, left[0].batch.last_offset) == (0, 49)
    assert content(left) == {49: (b"a", b"49", 149)}
    assert [len(step.replaced) for step in steps] == [50]


def test_steps_are_bounded() -> None:
    many = MERGED_BATCHES * 2 + 10
    _, steps = compacted(rows(log(*[[(b"a", b"1")] for _ in range(many)])))
    assert max(len(step.replaced) for step in steps) == MERGED_BATCHES
    large = b"v" * (MERGED_BYTES // 3)
    _, steps = compacted(rows(log(*[[(b"x", b"1"), (b"k%d" % at, large)] for at in range(20)])))
    assert max(step.size for step in steps) < 2 * MERGED_BYTES
    assert len(steps) >= 6


def test_batches_of_different_epochs_are_not_merged() -> None:
    first = log([(b"a", b"1")], [(b"a", b"2")], epoch=1)
    second = log([(b"a", b"3")], [(b"a", b"4")], epoch=2, start=2)
    left, _ = compacted(rows(first + second))
    assert [(row.batch.base_offset, row.batch.leader_epoch) for row in left] == [(0, 1), (2, 2)]
    assert sorted(content(left)) == [3]


def test_a_remembered_batch_keeps_place_and_stamp_even_if_empty() -> None:
    batches = log(*[[(b"a", b"1")] for _ in range(4)], stamped=True)
    left, _ = compacted(rows(batches, pinned=[1, 3]))
    stamps = {row.batch.base_offset: row.batch.header.base_sequence for row in left}
    assert stamps == {0: -1, 1: 1, 2: -1, 3: 3}
    assert [row.batch.header.record_count for row in left] == [0, 0, 0, 1]
    assert left[1].batch.header.producer_id == 7


def test_what_is_below_the_log_start_goes() -> None:
    left, _ = compacted(rows(log([(b"a", b"1"), (None, b"2"), (b"c", b"3")])), log_start=2)
    assert sorted(content(left)) == [2]


def test_append_times_are_the_records_times_afterwards() -> None:
    batches = [
        batch._replace(timestamp_type=common_pb2.TIMESTAMP_TYPE_APPEND)
        for batch in log([(b"a", b"1"), (b"b", b"1")], [(b"a", b"2"), (b"c", b"2"), (b"c", b"3")])
    ]
    before = content(rows(batches))
    left, _ = compacted(rows(batches))
    assert len(left) == 1
    assert content(left) == {offset: before[offset] for offset in (1, 2, 4)}
    assert [before[1][2], before[4][2]] == [5_000, 5_001]


# ---- tombstones


def test_a_tombstone_waits_for_its_retention_from_when_it_was_found() -> None:
    stored = rows(log([(b"a", b"1"), (b"b", b"1")], [(b"a", None)]))
    first, _ = compacted(stored, now_ms=50)
    assert content(first)[2] == (b"a", None, 102)
    assert 0 not in content(first)
    assert {row.tombstones_since_ms for row in first} == {50}
    early, steps = compacted(first, now_ms=50 + RETENTION_MS - 1)
    assert steps == []
    late, steps = compacted(early, now_ms=50 + RETENTION_MS)
    assert sorted(content(late)) == [1]
    assert max(step.tombstones_below for step in steps) == 3


def test_rule_19_a_tombstone_waits_until_every_replica_has_passed_it() -> None:
    found, _ = compacted(rows(log([(b"a", b"1")], [(b"a", None)], [(b"b", b"1")])), now_ms=50)
    left, steps = compacted(found, now_ms=10**6, passed=1)
    assert 1 in content(left)
    assert all(step.tombstones_below == 0 for step in steps)
    assert 1 not in content(compacted(found, now_ms=10**6, passed=2)[0])


def test_a_tombstone_that_is_superseded_goes_at_once() -> None:
    left, steps = compacted(rows(log([(b"a", None)], [(b"a", b"1")])), passed=0)
    assert sorted(content(left)) == [1]
    assert [step.tombstones_below for step in steps] == [0]


def test_the_next_tombstone_to_go_is_told() -> None:
    survey = Survey(2**20)
    stored = rows(log([(b"a", b"1")], [(b"a", None)]))
    assert all(survey.add(row.batch) for row in stored)
    rewriter = Rewriter(DATA, 0, survey, CompactionPolicy(70, RETENTION_MS, FOREVER))
    _ = [step for row in stored for step in rewriter.take(row)] + list(rewriter.finish())
    assert rewriter.due_ms == 70 + RETENTION_MS


# ---- what cannot be read, and what is too much


@pytest.mark.parametrize("harm", ["records", "count", "order", "range"])
def test_a_batch_that_cannot_be_read_stays_as_it_is(harm: str) -> None:
    good = log([(b"a", b"1")], [(b"a", b"2"), (b"b", b"2")], [(b"a", b"3")])
    records = [record_pb2.Record(offset_delta=at, key=key, value=b"x") for at, key in ((0, b"a"), (1, b"b"))]
    if harm == "order":
        records.reverse()
    if harm == "range":
        records[1].offset_delta = 9
    message = build([NewRecord(b"a", b"2", 1), NewRecord(b"b", b"2", 1)])
    message.records = record_pb2.RecordSet(records=records).SerializeToString()
    if harm == "records":
        message.records = b"\xff" * 10
    message.records_size = len(message.records)
    if harm == "count":
        message.record_count = 3
    bad = good[1]._replace(header=header_of(message), payload=message.SerializeToString())
    stored = rows([good[0], bad, good[2]])
    left, _ = compacted(stored)
    assert bad in [row.batch for row in left]
    assert left[-1].batch == good[2]


def test_control_and_transactional_batches_stay() -> None:
    batches = log([(b"a", b"1")], [(b"a", b"2")], [(b"a", b"3")])
    kinds = [batches[0]._replace(header=batches[0].header._replace(control=True))]
    kinds.append(batches[1]._replace(header=batches[1].header._replace(transactional=True)))
    assert compacted(rows([*kinds, batches[2]]))[1] == []


def test_the_survey_is_bounded_and_the_first_batch_always_fits() -> None:
    survey = Survey(10 * ENTRY_BYTES)
    batches = log(*[[(b"%d-%d" % (number, at), b"v") for at in range(6)] for number in range(4)])
    assert [survey.add(batch) for batch in batches[:2]] == [True, False]
    assert survey.add(batches[0]), "keys that it knows take nothing"
    large = Survey(1)
    assert large.add(batches[0])
    assert not large.add(batches[1])


def test_only_what_the_survey_has_seen_is_removed() -> None:
    batches = log([(b"a", b"1")], [(b"a", b"2")], [(b"a", b"3")])
    survey = Survey(2**20)
    assert survey.add(batches[0])
    assert survey.add(batches[1])
    left, _ = compacted(rows(batches[:2]), survey=survey)
    assert sorted(content(left)) == [1]


def test_long_keys_are_told_apart() -> None:
    long = [b"k" * DIGEST_ABOVE, b"k" * (DIGEST_ABOVE + 1), b"k" * 500, b"k" * 499 + b"j"]
    left, _ = compacted(rows(log([(key, b"1") for key in long], [(key, b"2") for key in reversed(long)])))
    assert sorted(content(left)) == [4, 5, 6, 7]
    assert len(survey_of(long)) == len(long)


def survey_of(keys: Sequence[bytes]) -> Survey:
    survey = Survey(2**20)
    assert survey.add(log([(key, b"v") for key in keys])[0])
    return survey


# ---- dividing


def test_a_batch_can_begin_later() -> None:
    batch = log([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])[0]
    divided = begin_at(batch, 1)
    assert (divided.base_offset, divided.last_offset) == (1, 2)
    assert content(rows([divided])) == {1: (b"b", b"2", 101), 2: (b"c", b"3", 102)}
    left, _ = compacted(rows(log(*[[(b"a", b"1")] for _ in range(5)])))
    assert content(rows([begin_at(left[0].batch, 3)])) == {4: (b"a", b"1", 104)}
    empty = begin_at(begin_at(left[0].batch, 3)._replace(payload=b"", header=batch.header._replace(record_count=0)), 4)
    assert empty.header.record_count == 0
