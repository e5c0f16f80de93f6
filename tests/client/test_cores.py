"""Catalog, cursor, partitioner, backoff, addresses, settings, errors: the small pure parts."""

import random
from itertools import islice

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.catalog import NO_LEADER, Catalog, Leadership
from penstock.client.connection import parse_bootstrap
from penstock.client.cursor import Cursor
from penstock.client.errors import (
    InvalidRequestError,
    LogDamagedError,
    OutcomeUnknownError,
    RequestTimeoutError,
    UnavailableError,
    make_error,
)
from penstock.client.failures import error_of_call
from penstock.client.options import ConsumerConfig, ProducerConfig
from penstock.client.partitioner import next_sticky, partition_of_key
from penstock.client.records import TopicPartition
from penstock.client.retry import Backoff
from penstock.client.topic_config import config_message, config_of, names_of_none, reset_names
from penstock.protocol.batch import NewRecord, build
from penstock.protocol.keys import partition_of
from penstock.protocol.limits import MAX_DURATION_MS
from penstock.protocol.reasons import Reason
from penstock.v1 import cluster_service_pb2, consumer_service_pb2, record_pb2, topic_service_pb2

HERE = TopicPartition("orders", 0)


def metadata(version: int, leader: int | None, leader_epoch: int, topic_id: bytes = b"a" * 16) -> object:
    topic = topic_service_pb2.Topic(topic_id=topic_id, name="orders")
    topic.partitions.add(partition=0, leader=leader, leader_epoch=leader_epoch)
    brokers = [cluster_service_pb2.Broker(node_id=n, host="h", port=n, fenced=n == 3) for n in (1, 2, 3)]
    return cluster_service_pb2.ClusterMetadata(metadata_version=version, brokers=brokers, topics=[topic])


def learn(catalog: Catalog, *args: object) -> bool:
    return catalog.learn(metadata(*args), ["orders"])  # type: ignore[arg-type]  # built above


def test_older_metadata_is_dropped() -> None:
    catalog = Catalog()
    assert learn(catalog, 5, 1, 3)
    assert not learn(catalog, 4, 2, 9)
    assert catalog.topics["orders"].partitions == (Leadership(1, 3),)
    assert catalog.live == ("h:1", "h:2")


def test_a_lower_leader_epoch_is_never_accepted() -> None:
    catalog = Catalog()
    learn(catalog, 5, 1, 3)
    assert catalog.learn_leader(b"a" * 16, 0, {"leader": "2", "leader_epoch": "7", "host": "x", "port": "9"})
    assert catalog.leader_address(catalog.topics["orders"].partitions[0]) == "x:9"
    assert not catalog.learn_leader(b"a" * 16, 0, {"leader": "1", "leader_epoch": "6"})
    learn(catalog, 6, 1, 3)
    assert catalog.topics["orders"].partitions == (Leadership(2, 7),)
    learn(catalog, 7, None, 8)
    assert catalog.topics["orders"].partitions == (Leadership(NO_LEADER, 8),)


def test_a_topic_created_again_is_another_topic() -> None:
    catalog = Catalog()
    learn(catalog, 5, 1, 3)
    learn(catalog, 6, 2, 0, b"b" * 16)
    assert catalog.topics["orders"].partitions == (Leadership(2, 0),)
    catalog.learn(cluster_service_pb2.ClusterMetadata(metadata_version=7), ["orders"])
    assert catalog.absent == {"orders"}


@pytest.mark.parametrize("hint", [{}, {"leader": "x", "leader_epoch": "1"}, {"leader": "-1", "leader_epoch": "9"}])
def test_a_useless_hint_is_no_news(hint: dict[str, str]) -> None:
    catalog = Catalog()
    learn(catalog, 5, 1, 3)
    assert not catalog.learn_leader(b"a" * 16, 0, hint)


def stored(base: int, count: int, leader_epoch: int = 0, last: int | None = None) -> record_pb2.StoredBatch:
    batch = build([NewRecord(None, str(base + n).encode(), 0) for n in range(count)])
    return record_pb2.StoredBatch(
        base_offset=base,
        last_offset=base + count - 1 if last is None else last,
        leader_epoch=leader_epoch,
        batch=batch,
    )


def accept(cursor: Cursor, *batches: record_pb2.StoredBatch, leader_epoch: int = 9) -> None:
    consumed = consumer_service_pb2.ConsumedPartition(leader_epoch=leader_epoch, batches=batches)
    cursor.accept(consumed, None, check_crc=True)


def test_a_cursor_gives_out_each_record_once_from_its_offset_on() -> None:
    cursor = Cursor(b"", HERE, 3)
    accept(cursor, stored(0, 5), stored(5, 2))
    taken, _ = cursor.take(3)
    assert [record.offset for record in taken] == [3, 4, 5]
    assert cursor.position == 6
    assert cursor.fetch_offset == 7
    taken, _ = cursor.take(9)
    assert [record.value for record in taken] == [b"6"]
    assert not cursor.has_data


@given(st.lists(st.integers(1, 4), min_size=1), st.lists(st.integers(1, 5)), st.integers(0, 30))
def test_any_way_of_taking_gives_the_same_records(sizes: list[int], takes: list[int], start: int) -> None:
    cursor = Cursor(b"", HERE, min(start, sum(sizes) - 1))
    first = cursor.position
    base, batches = 0, []
    for size in sizes:
        if base + size > first:
            batches.append(stored(base, size))
        base += size
    accept(cursor, *batches)
    out = []
    for count in [*takes, 100]:
        if count == 5:
            batch, _ = cursor.take_batch()
            out += [batch.base_offset + record.offset_delta for record in batch.records] if batch else []
        elif count == 4:
            out += [record.offset for record in islice(cursor.left, 1)]
        else:
            out += [record.offset for record in cursor.take(count)[0]]
        assert cursor.position == (out[-1] + 1 if out else first)
    assert out == list(range(first, base))


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        ([(4, 1, 0)], "was to come next"),
        ([(3, 1, 0), (5, 1, 0)], "was to come next"),
        ([(3, 1, 0), (3, 1, 0)], "was to come next"),
        ([(0, 2, 0)], "was to come next"),
        ([(3, 1, 2), (4, 1, 1)], "leader epoch 1 after 2"),
    ],
)
def test_a_log_with_a_gap_or_falling_epochs_is_damaged(batches: list[tuple[int, int, int]], why: str) -> None:
    cursor = Cursor(b"", HERE, 3)
    with pytest.raises(LogDamagedError, match=why):
        accept(cursor, *(stored(*batch) for batch in batches))
    assert not cursor.has_data
    assert cursor.fetch_offset == 3


def test_a_flipped_bit_is_found() -> None:
    cursor = Cursor(b"", HERE, 0)
    batch = stored(0, 2)
    batch.batch.records = batch.batch.records[:-1] + b"?"
    with pytest.raises(LogDamagedError, match="CRC"):
        accept(cursor, batch)


def test_a_compacted_batch_moves_the_position_to_its_end() -> None:
    cursor = Cursor(b"", HERE, 0)
    accept(cursor, stored(0, 2, last=9), stored(10, 1))
    assert [record.offset for record in cursor.take(2)[0]] == [0, 1]
    assert cursor.position == 10


def test_where_reading_goes_on_the_log_is_held_to_what_was_given_out() -> None:
    former = Cursor(b"", HERE, 0)
    accept(former, stored(0, 2, leader_epoch=3), leader_epoch=3)
    assert len(former.take(2)[0]) == 2
    former.paused = True
    cursor = former.again(2)
    assert cursor.paused
    assert (cursor.position, cursor.given_epoch, cursor.leader_epoch) == (2, 3, 3)
    with pytest.raises(LogDamagedError, match="leader epoch 2 after 3"):
        accept(cursor, stored(2, 1, leader_epoch=2), leader_epoch=3)
    accept(former.again(1), stored(1, 1, leader_epoch=2), leader_epoch=3)  # it was sought: what is before is not known


def test_a_lower_leadership_is_stale() -> None:
    cursor = Cursor(b"", HERE, 0)
    accept(cursor, stored(0, 1), leader_epoch=4)
    assert cursor.is_stale(consumer_service_pb2.ConsumedPartition(leader_epoch=3))
    assert not cursor.is_stale(consumer_service_pb2.ConsumedPartition(leader_epoch=4))


@given(st.binary(max_size=20), st.integers(1, 50))
def test_keys_go_where_the_protocol_says(key: bytes, partitions: int) -> None:
    assert partition_of_key(key, partitions) == partition_of(key, partitions)


@given(st.integers(1, 9), st.integers(0, 8), st.integers())
def test_the_sticky_partition_changes_where_it_can(partitions: int, present: int, seed: int) -> None:
    chosen = next_sticky(random.Random(seed), partitions, present)
    assert 0 <= chosen < partitions
    assert partitions == 1 or present >= partitions or chosen != present


def test_backoff_doubles_with_jitter_up_to_its_bound() -> None:
    backoff = Backoff(random.Random(1), 10, 80)
    waits = [backoff.next_ms() for _ in range(6)]
    for wait, bound in zip(waits, [10, 20, 40, 80, 80, 80], strict=True):
        assert bound / 2 <= wait <= bound
    backoff.reset()
    assert backoff.next_ms() <= 10


def test_bootstrap_addresses() -> None:
    assert parse_bootstrap("a:1, b:2,a:1") == ("a:1", "b:2")
    assert parse_bootstrap(["[::1]:9092"]) == ("[::1]:9092",)


@pytest.mark.parametrize("bad", ["", " , ", "host", "host:", ":9", "host:0", "host:70000", "host:x"])
def test_bad_bootstrap_addresses_are_refused(bad: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_bootstrap(bad)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="acks is 'some', not one of none, leader, all"):
        ProducerConfig(acks="some")
    with pytest.raises(InvalidRequestError, match="idempotence needs"):
        ProducerConfig(acks="leader", idempotence=True)
    with pytest.raises(InvalidRequestError, match="batch_bytes is 0"):
        ProducerConfig(batch_bytes=0)
    with pytest.raises(InvalidRequestError, match="isolation"):
        ConsumerConfig(isolation="dirty")
    assert ProducerConfig().is_idempotent
    assert not ProducerConfig(acks="none").is_idempotent


def test_settings_of_topics_both_ways() -> None:
    message = config_message(
        {"min.insync.replicas": "2", "retention_ms": 1500, "timestamp_type": "LogAppendTime", "max_batch_bytes": 7,
         "unclean.leader.election.enable": "true", "cleanup.policy": "delete", "retention.bytes": "-1"}
    )  # fmt: skip
    config = config_of(message)
    assert config.min_insync_replicas == 2
    assert (config.retention_ms, config.retention_bytes, config.max_batch_bytes) == (1500, 0, 7)
    assert (config.timestamp_type, config.cleanup_policy, config.unclean_leader_election) == ("append", "delete", True)
    assert reset_names(["retention.ms", "max_batch_bytes"]) == ["retention_time", "max_batch_bytes"]
    assert config_message(None) == topic_service_pb2.TopicConfig()


def test_settings_of_compaction_by_kafkas_names() -> None:
    settings: dict[str, str | int] = {
        "cleanup.policy": " delete, compact",
        "delete.retention.ms": "1",
        "min.compaction.lag.ms": 2,
        "max.compaction.lag.ms": "3",
        "min.cleanable.dirty.ratio": "0.25",
        "message.timestamp.before.max.ms": "4",
        "message.timestamp.after.max.ms": "5",
    }
    config = config_of(config_message(settings))
    assert config.cleanup_policy == "compact,delete"
    assert (config.delete_retention_ms, config.min_compaction_lag_ms, config.max_compaction_lag_ms) == (1, 2, 3)
    assert (config.min_dirty_ratio, config.timestamp_before_max_ms, config.timestamp_after_max_ms) == (0.25, 4, 5)
    assert reset_names(settings) == [
        "cleanup_policy",
        "delete_retention_time",
        "min_compaction_lag",
        "max_compaction_lag",
        "min_dirty_ratio",
        "timestamp_before_max",
        "timestamp_after_max",
    ]
    assert reset_names(reset_names(settings)) == reset_names(settings)
    assert names_of_none(settings) == []


@pytest.mark.parametrize("written", [None, "none", "unlimited", -1, "9223372036854775807", 2**63 - 1])
def test_none_is_the_default_and_a_change_to_it_a_reset(written: str | int | None) -> None:
    settings = {"retention.ms": written, "max_compaction_lag_ms": written, "message.timestamp.before.max.ms": written}
    assert config_message(settings) == topic_service_pb2.TopicConfig()
    assert names_of_none(settings) == ["retention_time", "max_compaction_lag", "timestamp_before_max"]


def test_kafkas_for_ever_is_the_longest_time_where_none_cannot_be() -> None:
    config = config_of(config_message({"message.timestamp.after.max.ms": "9223372036854775807"}))
    assert config.timestamp_after_max_ms == MAX_DURATION_MS


def test_an_earlier_server_does_as_the_defaults_say() -> None:
    config = config_of(topic_service_pb2.TopicConfig())
    assert (config.delete_retention_ms, config.min_compaction_lag_ms, config.max_compaction_lag_ms) == (
        86_400_000,
        0,
        None,
    )
    assert (config.min_dirty_ratio, config.timestamp_before_max_ms, config.timestamp_after_max_ms) == (
        0.5,
        None,
        3_600_000,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("nope", 1), ("retention_ms", "soon"), ("retention_ms", -2), ("retention_ms", 10**15), ("min_insync_replicas", 0),
     ("cleanup_policy", "compacted"), ("cleanup_policy", ""), ("cleanup_policy", "delete,delete"),
     ("unclean_leader_election", "perhaps"), ("max_batch_bytes", True), ("min_dirty_ratio", "nan"),
     ("min_dirty_ratio", 1.5), ("min_dirty_ratio", True), ("min_dirty_ratio", None), ("delete.retention.ms", -1),
     ("delete.retention.ms", None), ("min.compaction.lag.ms", "none"), ("message.timestamp.after.max.ms", "-1")],
)  # fmt: skip
def test_bad_settings_are_refused(name: str, value: str | int | float | bool | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        config_message({name: value})
    assert caught.value.reason is Reason.INVALID_CONFIG


def failure(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="broken")


def test_a_lost_write_is_of_unknown_outcome_and_a_lost_read_is_not() -> None:
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        assert isinstance(error_of_call(failure(code), write=True), OutcomeUnknownError)
        assert isinstance(error_of_call(failure(code), write=False), UnavailableError)
    assert isinstance(error_of_call(failure(grpc.StatusCode.DEADLINE_EXCEEDED), write=False), RequestTimeoutError)
    assert error_of_call(failure(grpc.StatusCode.UNIMPLEMENTED), write=True).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_an_error(reason: Reason) -> None:
    assert make_error(reason, "text").reason is reason
