"""Settings of a topic: defaults, changes, refusals by name."""

import math
from dataclasses import fields

import pytest
from google.protobuf.duration_pb2 import Duration

from penstock.protocol.limits import DEFAULT_MAX_BATCH_BYTES, MAX_BATCH_BYTES
from penstock.raft.topic_config import InvalidConfigError, TopicConfig, altered, defaults, initial
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as pb

COMPACT, BOTH = common.CLEANUP_POLICY_COMPACT, common.CLEANUP_POLICY_COMPACT_AND_DELETE
HOUR_MS = 3_600_000


def test_defaults_depend_on_the_replication_factor() -> None:
    assert [defaults(factor).min_insync_replicas for factor in (1, 2, 3, 5)] == [1, 1, 2, 2]
    config = initial(pb.TopicConfig(), 3)
    assert config == TopicConfig(min_insync_replicas=2)
    assert config.max_batch_bytes == DEFAULT_MAX_BATCH_BYTES


def test_what_is_absent_keeps_its_value_and_false_is_a_value() -> None:
    asked = pb.TopicConfig(retention_time=Duration(seconds=5), unclean_leader_election=True, retention_bytes=7)
    config = altered(TopicConfig(2, max_batch_bytes=4096), asked, [], 3)
    assert config == TopicConfig(
        2, retention_time_ms=5000, retention_bytes=7, max_batch_bytes=4096, unclean_leader_election=True
    )
    off = altered(config, pb.TopicConfig(unclean_leader_election=False, retention_bytes=0), [], 3)
    assert (off.unclean_leader_election, off.retention_bytes, off.retention_time_ms) == (False, 0, 5000)


def test_reset_puts_the_default_back() -> None:
    present = TopicConfig(3, retention_time_ms=5, timestamp_type=common.TIMESTAMP_TYPE_APPEND)
    names = ["retention_time", "min_insync_replicas", "timestamp_type"]
    assert altered(present, pb.TopicConfig(), names, 3) == defaults(3)


@pytest.mark.parametrize(
    ("asked", "name", "text"),
    [
        (pb.TopicConfig(min_insync_replicas=0), "min_insync_replicas", "1 or more"),
        (pb.TopicConfig(min_insync_replicas=4), "min_insync_replicas", "4 is above the replication factor 3"),
        (pb.TopicConfig(retention_time=Duration(seconds=-1)), "retention_time", "-1000 ms"),
        (pb.TopicConfig(retention_time=Duration(nanos=1)), "retention_time", "0 ms"),
        (pb.TopicConfig(retention_time=Duration(seconds=2**62)), "retention_time", "not in"),
        (pb.TopicConfig(retention_bytes=2**63), "retention_bytes", "2^63"),
        (pb.TopicConfig(max_batch_bytes=10), "max_batch_bytes", "10 is not in"),
        (pb.TopicConfig(max_batch_bytes=MAX_BATCH_BYTES + 1), "max_batch_bytes", "not in"),
        (pb.TopicConfig(retention_time=Duration(seconds=10**12)), "retention_time", "not in"),
        (pb.TopicConfig(delete_retention_time=Duration(nanos=-1)), "delete_retention_time", "-1 ms is not in 0.."),
        (pb.TopicConfig(min_compaction_lag=Duration(seconds=-1)), "min_compaction_lag", "-1000 ms"),
        (pb.TopicConfig(max_compaction_lag=Duration()), "max_compaction_lag", "0 ms is not in 1.."),
        (pb.TopicConfig(timestamp_before_max=Duration(seconds=-5)), "timestamp_before_max", "-5000 ms"),
        (pb.TopicConfig(timestamp_after_max=Duration(seconds=2**60)), "timestamp_after_max", "not in"),
        (pb.TopicConfig(min_dirty_ratio=-0.1), "min_dirty_ratio", "-0.1 is not in 0..1"),
        (pb.TopicConfig(min_dirty_ratio=1.01), "min_dirty_ratio", "1.01 is not in 0..1"),
        (pb.TopicConfig(min_dirty_ratio=math.nan), "min_dirty_ratio", "nan is not in 0..1"),
        (
            pb.TopicConfig(min_compaction_lag=Duration(seconds=2), max_compaction_lag=Duration(seconds=1)),
            "max_compaction_lag",
            "max_compaction_lag 1000 ms is below min_compaction_lag 2000 ms",
        ),
        (pb.TopicConfig(cleanup_policy=COMPACT, retention_time=Duration(seconds=1)), "retention_time", "leave it out"),
        (pb.TopicConfig(cleanup_policy=COMPACT, retention_bytes=1), "retention_bytes", "have compact,delete"),
        (pb.TopicConfig(cleanup_policy=9), "cleanup_policy", "9 is unknown"),  # type: ignore[arg-type]
        (pb.TopicConfig(timestamp_type=9), "timestamp_type", "9 is unknown"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_value_is_refused_by_name(asked: pb.TopicConfig, name: str, text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        initial(asked, 3)
    assert caught.value.name == name
    assert text in str(caught.value)


def test_a_reset_of_what_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(InvalidConfigError, match="did you mean retention_bytes"):
        altered(TopicConfig(), pb.TopicConfig(), ["retention_byte"], 1)
    with pytest.raises(InvalidConfigError, match="settings are: min_insync_replicas"):
        altered(TopicConfig(), pb.TopicConfig(), ["zzz"], 1)
    with pytest.raises(InvalidConfigError, match="both set and reset"):
        altered(TopicConfig(), pb.TopicConfig(retention_bytes=1), ["retention_bytes"], 1)


def test_the_api_shows_every_setting() -> None:
    config = TopicConfig(2, retention_time_ms=90_001, retention_bytes=5, unclean_leader_election=True)
    assert initial(config.to_proto(), 3) == config
    assert not TopicConfig().to_proto().HasField("retention_time")
    assert TopicConfig().to_proto().HasField("unclean_leader_election")


def test_the_defaults_of_compaction_are_as_documented() -> None:
    config = initial(pb.TopicConfig(), 1)
    assert (config.delete_retention_ms, config.min_compaction_lag_ms, config.max_compaction_lag_ms) == (
        24 * HOUR_MS,
        0,
        None,
    )
    assert (config.min_dirty_ratio, config.timestamp_before_max_ms, config.timestamp_after_max_ms) == (
        0.5,
        None,
        HOUR_MS,
    )
    assert (config.compacts, config.deletes) == (False, True)


def test_every_setting_is_shown_set_and_reset() -> None:
    config = TopicConfig(2, BOTH, 1, 2, 4096, common.TIMESTAMP_TYPE_APPEND, True, 3, 4, 5, 0.0, 0, 0)  # noqa: FBT003
    back = TopicConfig()
    assert all(getattr(config, field.name) != getattr(back, field.name) for field in fields(TopicConfig))
    shown = config.to_proto()
    assert {field.name for field, _ in shown.ListFields()} == {field.name for field in pb.TopicConfig.DESCRIPTOR.fields}
    assert initial(shown, 3) == config
    names = [field.name for field in pb.TopicConfig.DESCRIPTOR.fields]
    assert altered(config, pb.TopicConfig(), names, 1) == back
    absent = {"retention_time", "max_compaction_lag", "timestamp_before_max"}
    assert {field.name for field, _ in back.to_proto().ListFields()} == set(names) - absent


def test_what_waits_for_another_policy_is_allowed() -> None:
    asked = pb.TopicConfig(min_compaction_lag=Duration(seconds=1), max_compaction_lag=Duration(seconds=1))
    config = initial(asked, 1)
    assert (config.min_compaction_lag_ms, config.max_compaction_lag_ms, config.compacts) == (1000, 1000, False)


def test_lags_are_told_apart_by_which_one_is_set() -> None:
    present = TopicConfig(max_compaction_lag_ms=1000)
    with pytest.raises(InvalidConfigError) as caught:
        altered(present, pb.TopicConfig(min_compaction_lag=Duration(seconds=2)), [], 1)
    assert caught.value.name == "min_compaction_lag"
    both = altered(present, pb.TopicConfig(min_compaction_lag=Duration(seconds=2)), ["max_compaction_lag"], 1)
    assert (both.min_compaction_lag_ms, both.max_compaction_lag_ms) == (2000, None)


def test_from_delete_with_retention_to_compact() -> None:
    present = TopicConfig(retention_time_ms=5, retention_bytes=7)
    to_compact = pb.TopicConfig(cleanup_policy=COMPACT)
    for reset, name in (((), "retention_time"), (["retention_time"], "retention_bytes")):
        with pytest.raises(InvalidConfigError, match="reset it in the same request") as caught:
            altered(present, to_compact, reset, 1)
        assert caught.value.name == name
    compacted = altered(present, to_compact, ["retention_time", "retention_bytes"], 1)
    assert compacted == TopicConfig(cleanup_policy=COMPACT)
    assert (compacted.compacts, compacted.deletes) == (True, False)
    both = altered(present, pb.TopicConfig(cleanup_policy=BOTH), [], 1)
    assert (both.retention_time_ms, both.retention_bytes, both.compacts, both.deletes) == (5, 7, True, True)
    assert altered(present, pb.TopicConfig(cleanup_policy=COMPACT, retention_bytes=0), ["retention_time"], 1).compacts


def test_retention_of_a_compacted_topic_is_refused_with_the_way_to_have_it() -> None:
    present = TopicConfig(cleanup_policy=COMPACT)
    retained = pb.TopicConfig(retention_time=Duration(seconds=1))
    with pytest.raises(InvalidConfigError, match="leave it out, or have compact,delete"):
        altered(present, retained, [], 1)
    retained.cleanup_policy = BOTH
    assert altered(present, retained, [], 1).retention_time_ms == 1000
