"""What a leader takes, by the settings that the topic has then: sizes, timestamps, keys."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from penstock.node.api.admission import admit, check_records
from penstock.protocol.batch import NOT_STAMPED, BatchHeader, NewRecord, build, crc_of, header_of, seal
from penstock.protocol.compression import COMPRESSIONS
from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_COMPACTED_RECORDS_SIZE
from penstock.protocol.reasons import Outcome, Reason
from penstock.raft.image import TopicConfig, TopicInfo
from penstock.v1 import common_pb2 as common
from penstock.v1 import producer_service_pb2, record_pb2

NOW = 1_700_000_000_000
HOUR = 3_600_000
DEFAULTS = TopicConfig()
COMPACT = TopicConfig(cleanup_policy=common.CLEANUP_POLICY_COMPACT)


def topic(config: TopicConfig = DEFAULTS) -> TopicInfo:
    return TopicInfo(b"t" * 16, "t", config, ())


def batch(*stamps: int, key: bytes | None = b"k") -> record_pb2.RecordBatch:
    return build([NewRecord(key, b"v", stamp) for stamp in stamps or (NOW,)])


def refusal(sent: record_pb2.RecordBatch, config: TopicConfig) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        admit(sent.SerializeToString(), topic(config), NOW)
    assert caught.value.reason.outcome is Outcome.DEFINITE
    return caught.value


def taken(sent: record_pb2.RecordBatch, config: TopicConfig) -> bool:
    return admit(sent.SerializeToString(), topic(config), NOW) == header_of(sent)


def record_set(*records: record_pb2.Record, count: int | None = None) -> record_pb2.RecordBatch:
    """A batch of these records, whatever they are."""
    content = record_pb2.RecordSet(records=records).SerializeToString()
    return sealed(content, len(records) if count is None else count)


def sealed(content: bytes, count: int, compression: str = "none") -> record_pb2.RecordBatch:
    header = BatchHeader(
        COMPRESSIONS[compression], count, 0, NOW, NOW, *NOT_STAMPED, transactional=False, control=False
    )
    return seal(content, header)


def test_clients_do_not_write_internal_topics() -> None:
    internal = replace(topic(COMPACT), internal=True)
    produced = batch().SerializeToString()
    published = [producer_service_pb2.PublishRecord(key=b"k")]
    for refused in (lambda: admit(produced, internal, NOW), lambda: check_records(internal, published, NOW)):
        with pytest.raises(PenstockError, match="internal") as caught:
            refused()
        assert caught.value.reason is Reason.INVALID_ARGUMENT


# ---- timestamps


def test_the_default_is_an_hour_ahead_and_any_time_ago() -> None:
    assert taken(batch(NOW + HOUR), TopicConfig())
    assert taken(batch(0), TopicConfig())
    error = refusal(batch(NOW, NOW + HOUR + 1, NOW), TopicConfig())
    assert error.reason is Reason.INVALID_TIMESTAMP
    assert error.metadata == {"timestamp_after_max_ms": str(HOUR)}


def test_a_topic_sets_both_bounds() -> None:
    config = TopicConfig(timestamp_before_max_ms=1000, timestamp_after_max_ms=10 * HOUR)
    assert taken(batch(NOW - 1000, NOW + 10 * HOUR), config)
    assert refusal(batch(NOW + 10 * HOUR + 1), config).reason is Reason.INVALID_TIMESTAMP
    late = refusal(batch(NOW - 1001, NOW), config)
    assert (late.reason, late.metadata) == (Reason.INVALID_TIMESTAMP, {"timestamp_before_max_ms": "1000"})
    assert taken(batch(NOW), TopicConfig(timestamp_before_max_ms=0, timestamp_after_max_ms=0))


def test_no_timestamp_is_none_to_refuse() -> None:
    assert taken(batch(-1), TopicConfig(timestamp_before_max_ms=0))
    assert refusal(batch(-2), TopicConfig(timestamp_before_max_ms=0)).reason is Reason.INVALID_TIMESTAMP


def test_where_the_leader_stamps_the_producers_times_do_not_matter() -> None:
    config = TopicConfig(timestamp_type=common.TIMESTAMP_TYPE_APPEND, timestamp_before_max_ms=0)
    assert taken(batch(0, NOW + 1000 * HOUR), config)


# ---- keys


def test_a_compacted_topic_takes_keyed_records_only() -> None:
    both = replace(COMPACT, cleanup_policy=common.CLEANUP_POLICY_COMPACT_AND_DELETE)
    for config in (COMPACT, both):
        assert taken(batch(NOW, NOW), config)
        assert taken(batch(NOW, key=b""), config)  # an empty key is one
        records = [NewRecord(b"a", b"1", NOW), NewRecord(b"b", None, NOW), NewRecord(None, b"3", NOW)]
        error = refusal(build(records), config)
        assert (error.reason, error.metadata) == (Reason.KEY_REQUIRED, {"topic": "t", "record": "2"})
    assert taken(batch(key=None), TopicConfig())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_keys_are_found_in_every_compression(compression: str) -> None:
    keyed = [NewRecord(b"k%d" % index, b"v", NOW + index) for index in range(500)]
    assert taken(build(keyed, COMPRESSIONS[compression]), COMPACT)
    error = refusal(build([*keyed, NewRecord(None, b"v", NOW)], COMPRESSIONS[compression]), COMPACT)
    assert (error.reason, error.metadata["record"]) == (Reason.KEY_REQUIRED, "500")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (sealed(b"\xff" * 9, 1), "not readable"),
        (sealed(b"\xff" * 9, 1, "zstd"), "not readable"),
        (record_set(record_pb2.Record(key=b"k"), count=2), "has 1 records, its record_count is 2"),
        (record_set(*[record_pb2.Record(key=b"k")] * 2), "record 1 of the batch has offset_delta 0"),
        (record_set(record_pb2.Record(key=b"k", offset_delta=5)), "record 0 of the batch has offset_delta 5"),
        (record_set(count=1), "has 0 records"),
    ],
)
def test_records_that_are_not_what_the_batch_says_are_refused(sent: record_pb2.RecordBatch, words: str) -> None:
    error = refusal(sent, COMPACT)
    assert error.reason is Reason.INVALID_BATCH
    assert words in error.message


def test_a_written_zero_is_a_zero() -> None:
    record = b"\x08\x00" + record_pb2.Record(key=b"k").SerializeToString()  # no encoder of protobuf does, many may
    assert taken(sealed(b"\n" + bytes([len(record)]) + record, 1), COMPACT)


def test_what_does_not_decompress_is_refused() -> None:
    sent = sealed(b"", 1)
    sent.compression, sent.records, sent.records_size = record_pb2.COMPRESSION_ZSTD, b"no frame", 8
    sent.crc32c = crc_of(header_of(sent), sent.records)
    assert refusal(sent, COMPACT).reason is Reason.INVALID_BATCH
    assert taken(sent, TopicConfig())  # nobody looks into it there


def test_a_compacted_topic_takes_no_more_than_can_be_looked_into_soon() -> None:
    record = record_pb2.Record(key=b"k", value=bytes(MAX_COMPACTED_RECORDS_SIZE))
    large = sealed(record_pb2.RecordSet(records=[record]).SerializeToString(), 1, "zstd")
    error = refusal(large, COMPACT)
    assert error.reason is Reason.RECORD_TOO_LARGE
    assert str(MAX_COMPACTED_RECORDS_SIZE) in error.message
    assert taken(large, TopicConfig())


# ---- what clients may not send, in topics of any kind


@pytest.mark.parametrize("config", [TopicConfig(), COMPACT])
def test_empty_and_control_batches_are_the_servers_own(config: TopicConfig) -> None:
    assert refusal(record_set(count=0), config).reason is Reason.INVALID_BATCH
    control = BatchHeader(COMPRESSIONS["none"], 1, 0, NOW, NOW, *NOT_STAMPED, transactional=False, control=True)
    assert refusal(seal(b"", control), config).reason is Reason.INVALID_BATCH


def test_the_size_is_the_topics() -> None:
    error = refusal(build([NewRecord(b"k", bytes(2000), NOW)]), TopicConfig(max_batch_bytes=1024))
    assert (error.reason, error.metadata) == (Reason.RECORD_TOO_LARGE, {"max_batch_bytes": "1024"})


# ---- Publish


def plain(*records: tuple[bytes | None, int | None]) -> Sequence[producer_service_pb2.PublishRecord]:
    return [producer_service_pb2.PublishRecord(key=key, value=b"v", timestamp_ms=stamp) for key, stamp in records]


def test_plain_records_are_checked_alike_each_by_itself() -> None:
    config = replace(COMPACT, timestamp_before_max_ms=HOUR)
    check_records(topic(config), plain((b"", None), (b"k", NOW - HOUR), (b"k", -1), (b"k", NOW + HOUR)), NOW)
    for records, reason in (
        (plain((b"k", None), (None, None)), Reason.KEY_REQUIRED),
        (plain((b"k", None), (b"k", NOW + HOUR + 1)), Reason.INVALID_TIMESTAMP),
        (plain((b"k", NOW), (b"k", NOW - HOUR - 1)), Reason.INVALID_TIMESTAMP),
    ):
        with pytest.raises(PenstockError) as caught:
            check_records(topic(config), records, NOW)
        assert caught.value.reason is reason
    check_records(topic(), plain((None, 0), (None, None)), NOW)
