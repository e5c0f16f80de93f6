"""Settings of a topic: defaults, changes, refusals by name."""

import pytest
from google.protobuf.duration_pb2 import Duration

from penstock.protocol.limits import DEFAULT_MAX_BATCH_BYTES, MAX_BATCH_BYTES
from penstock.raft.topic_config import InvalidConfigError, TopicConfig, altered, defaults, initial
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as pb


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
