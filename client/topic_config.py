"""Topic settings as users write them, to the API's messages and back. Pure.

Names are the fields of descriptions.TopicConfig; Kafka's dotted names are understood too. Values may be text.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, TypeVar

from penstock.client.descriptions import TopicConfig
from penstock.client.errors import InvalidRequestError
from penstock.protocol.limits import (
    DEFAULT_DELETE_RETENTION_MS,
    DEFAULT_MIN_DIRTY_RATIO,
    DEFAULT_TIMESTAMP_AFTER_MAX_MS,
    MAX_DURATION_MS,
)
from penstock.protocol.reasons import Reason
from penstock.v1 import common_pb2
from penstock.v1 import topic_service_pb2 as pb

ConfigValue: TypeAlias = str | int | float | bool | None
DurationField: TypeAlias = Literal[
    "retention_time",
    "delete_retention_time",
    "min_compaction_lag",
    "max_compaction_lag",
    "timestamp_before_max",
    "timestamp_after_max",
]
T = TypeVar("T")

_ALIASES = {
    "min.insync.replicas": "min_insync_replicas",
    "cleanup.policy": "cleanup_policy",
    "retention.ms": "retention_ms",
    "retention.bytes": "retention_bytes",
    "max.message.bytes": "max_batch_bytes",
    "max_message_bytes": "max_batch_bytes",
    "message.timestamp.type": "timestamp_type",
    "unclean.leader.election.enable": "unclean_leader_election",
    "delete.retention.ms": "delete_retention_ms",
    "min.compaction.lag.ms": "min_compaction_lag_ms",
    "max.compaction.lag.ms": "max_compaction_lag_ms",
    "min.cleanable.dirty.ratio": "min_dirty_ratio",
    "min_cleanable_dirty_ratio": "min_dirty_ratio",
    "message.timestamp.before.max.ms": "timestamp_before_max_ms",
    "message.timestamp.after.max.ms": "timestamp_after_max_ms",
}
_DURATIONS = {
    "retention_ms": "retention_time",
    "delete_retention_ms": "delete_retention_time",
    "min_compaction_lag_ms": "min_compaction_lag",
    "max_compaction_lag_ms": "max_compaction_lag",
    "timestamp_before_max_ms": "timestamp_before_max",
    "timestamp_after_max_ms": "timestamp_after_max",
}
"""Settings that are times, and what the API calls them: there they are durations."""
_ALIASES |= {api_name: name for name, api_name in _DURATIONS.items()}
_NONE = frozenset({"none", "unlimited", "-1"})
_MAY_BE_NONE = frozenset({"retention_ms", "max_compaction_lag_ms", "timestamp_before_max_ms"})
_KAFKA_FOR_EVER = 2**63 - 1
"""How Kafka writes a time without an end."""
_POLICIES = {
    "delete": common_pb2.CLEANUP_POLICY_DELETE,
    "compact": common_pb2.CLEANUP_POLICY_COMPACT,
    "compact,delete": common_pb2.CLEANUP_POLICY_COMPACT_AND_DELETE,
}
_STAMPS = {
    "create": common_pb2.TIMESTAMP_TYPE_CREATE,
    "createtime": common_pb2.TIMESTAMP_TYPE_CREATE,
    "append": common_pb2.TIMESTAMP_TYPE_APPEND,
    "logappendtime": common_pb2.TIMESTAMP_TYPE_APPEND,
}
_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _set_min_insync(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    config.min_insync_replicas = _integer(name, value, 1, 2**32 - 1)


def _set_cleanup(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    in_order = ",".join(sorted(part.strip() for part in str(value).split(",")))
    config.cleanup_policy = _choice(name, in_order, _POLICIES)


def _set_duration(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    if str(value).strip() == str(_KAFKA_FOR_EVER):  # for one that cannot be none: as long as can be
        value = MAX_DURATION_MS
    getattr(config, _DURATIONS[name]).FromMilliseconds(_integer(name, value, 0, MAX_DURATION_MS))


def _set_retention_bytes(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    config.retention_bytes = 0 if str(value).strip() == "-1" else _integer(name, value, 0, 2**63 - 1)


def _set_max_batch(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    config.max_batch_bytes = _integer(name, value, 1, 2**31 - 1)


def _set_timestamp_type(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    config.timestamp_type = _choice(name, value, _STAMPS)


def _set_unclean(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    truth = _TRUTH.get(str(value).strip().lower())
    if truth is None:
        raise _invalid(name, value, "true or false")
    config.unclean_leader_election = truth


def _set_dirty_ratio(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    try:
        ratio = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        raise _invalid(name, value, "a number from 0 to 1")
    config.min_dirty_ratio = ratio


_SETTERS: dict[str, Callable[[pb.TopicConfig, str, ConfigValue], None]] = {
    "min_insync_replicas": _set_min_insync,
    "cleanup_policy": _set_cleanup,
    "retention_ms": _set_duration,
    "retention_bytes": _set_retention_bytes,
    "max_batch_bytes": _set_max_batch,
    "timestamp_type": _set_timestamp_type,
    "unclean_leader_election": _set_unclean,
    "delete_retention_ms": _set_duration,
    "min_compaction_lag_ms": _set_duration,
    "max_compaction_lag_ms": _set_duration,
    "min_dirty_ratio": _set_dirty_ratio,
    "timestamp_before_max_ms": _set_duration,
    "timestamp_after_max_ms": _set_duration,
}


def config_message(config: Mapping[str, ConfigValue] | None) -> pb.TopicConfig:
    """Make the message of these settings; InvalidRequestError for an unknown name or a value that cannot be.

    Those that are to be none are not in it: see `names_of_none`.
    """
    message = pb.TopicConfig()
    for name, value in (config or {}).items():
        known = _known(name)
        if not _is_none(known, value):
            _SETTERS[known](message, known, value)
    return message


def names_of_none(config: Mapping[str, ConfigValue] | None) -> list[str]:
    """Give the API's names of the settings that are to be none, which is their default: a change must reset them."""
    named = [(_known(name), value) for name, value in (config or {}).items()]
    return [_DURATIONS[name] for name, value in named if _is_none(name, value)]


def _is_none(name: str, value: ConfigValue) -> bool:
    """Say so, too, of what Kafka writes for it."""
    text = str(value).strip().lower()
    return name in _MAY_BE_NONE and (text in _NONE or text == str(_KAFKA_FOR_EVER))


def reset_names(names: Iterable[str]) -> list[str]:
    """Give the API's names of settings to put back to their defaults."""
    known = [_known(name) for name in ([names] if isinstance(names, str) else names)]
    return [_DURATIONS.get(name, name) for name in known]


def config_of(message: pb.TopicConfig) -> TopicConfig:
    """Describe resolved settings; one that a server of an earlier version does not name is as it acts: the default."""
    ratio = message.min_dirty_ratio if message.HasField("min_dirty_ratio") else DEFAULT_MIN_DIRTY_RATIO
    return TopicConfig(
        min_insync_replicas=message.min_insync_replicas,
        cleanup_policy=_name_of(message.cleanup_policy, _POLICIES),
        retention_ms=_milliseconds(message, "retention_time", None),
        retention_bytes=message.retention_bytes,
        max_batch_bytes=message.max_batch_bytes,
        timestamp_type=_name_of(message.timestamp_type, _STAMPS),
        unclean_leader_election=message.unclean_leader_election,
        delete_retention_ms=_milliseconds(message, "delete_retention_time", DEFAULT_DELETE_RETENTION_MS),
        min_compaction_lag_ms=_milliseconds(message, "min_compaction_lag", 0),
        max_compaction_lag_ms=_milliseconds(message, "max_compaction_lag", None),
        min_dirty_ratio=ratio,
        timestamp_before_max_ms=_milliseconds(message, "timestamp_before_max", None),
        timestamp_after_max_ms=_milliseconds(message, "timestamp_after_max", DEFAULT_TIMESTAMP_AFTER_MAX_MS),
    )


def _milliseconds(message: pb.TopicConfig, field: DurationField, absent: T) -> int | T:
    return getattr(message, field).ToMilliseconds() if message.HasField(field) else absent


def _known(name: str) -> str:
    known = _ALIASES.get(name, name)
    if known not in _SETTERS:
        raise InvalidRequestError(
            Reason.INVALID_CONFIG, f"setting {name!r} is unknown; known are {', '.join(_SETTERS)}", {"name": name}
        )
    return known


def _invalid(name: str, value: ConfigValue, expected: str) -> InvalidRequestError:
    return InvalidRequestError(Reason.INVALID_CONFIG, f"{name} is {value!r}, not {expected}", {"name": name})


def _integer(name: str, value: ConfigValue, low: int, high: int) -> int:
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise _invalid(name, value, f"a whole number from {low} to {high}")
    return number


def _choice(name: str, value: ConfigValue, choices: Mapping[str, T]) -> T:
    chosen = choices.get(str(value).strip().lower())
    if chosen is None:
        raise _invalid(name, value, "one of " + ", ".join(choices))
    return chosen


def _name_of(value: int, names: Mapping[str, int]) -> str:
    return next((name for name, known in names.items() if known == value), str(value))
