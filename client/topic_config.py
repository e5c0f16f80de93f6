"""Topic settings as users write them, to the API's messages and back. Pure.

Names are the fields of descriptions.TopicConfig; Kafka's dotted names are understood too. Values may be text.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from penstock.client.descriptions import TopicConfig
from penstock.client.errors import InvalidRequestError
from penstock.protocol.reasons import Reason
from penstock.v1 import common_pb2
from penstock.v1 import topic_service_pb2 as pb

ConfigValue: TypeAlias = str | int | bool | None
T = TypeVar("T")

_ALIASES = {
    "min.insync.replicas": "min_insync_replicas",
    "cleanup.policy": "cleanup_policy",
    "retention.ms": "retention_ms",
    "retention_time": "retention_ms",
    "retention.bytes": "retention_bytes",
    "max.message.bytes": "max_batch_bytes",
    "max_message_bytes": "max_batch_bytes",
    "message.timestamp.type": "timestamp_type",
    "unclean.leader.election.enable": "unclean_leader_election",
}
_POLICIES = {"delete": common_pb2.CLEANUP_POLICY_DELETE}
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
    config.cleanup_policy = _choice(name, value, _POLICIES)


def _set_retention(config: pb.TopicConfig, name: str, value: ConfigValue) -> None:
    if value is None or str(value).strip() == "-1":
        raise _invalid(name, value, "a number of ms; to keep records for ever reset the setting")
    config.retention_time.FromMilliseconds(_integer(name, value, 0, 2**53))


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


_SETTERS: dict[str, Callable[[pb.TopicConfig, str, ConfigValue], None]] = {
    "min_insync_replicas": _set_min_insync,
    "cleanup_policy": _set_cleanup,
    "retention_ms": _set_retention,
    "retention_bytes": _set_retention_bytes,
    "max_batch_bytes": _set_max_batch,
    "timestamp_type": _set_timestamp_type,
    "unclean_leader_election": _set_unclean,
}


def config_message(config: Mapping[str, ConfigValue] | None) -> pb.TopicConfig:
    """Make the message of these settings; InvalidRequestError for an unknown name or a value that cannot be."""
    message = pb.TopicConfig()
    for name, value in (config or {}).items():
        known = _known(name)
        _SETTERS[known](message, known, value)
    return message


def reset_names(names: Iterable[str]) -> list[str]:
    """Give the API's names of settings to put back to their defaults."""
    known = [_known(name) for name in ([names] if isinstance(names, str) else names)]
    return ["retention_time" if name == "retention_ms" else name for name in known]


def config_of(message: pb.TopicConfig) -> TopicConfig:
    """Describe resolved settings."""
    return TopicConfig(
        min_insync_replicas=message.min_insync_replicas,
        cleanup_policy=_name_of(message.cleanup_policy, _POLICIES),
        retention_ms=message.retention_time.ToMilliseconds() if message.HasField("retention_time") else None,
        retention_bytes=message.retention_bytes,
        max_batch_bytes=message.max_batch_bytes,
        timestamp_type=_name_of(message.timestamp_type, _STAMPS),
        unclean_leader_election=message.unclean_leader_election,
    )


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
