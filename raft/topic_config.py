"""Settings of a topic: defaults, changes asked for, and what is wrong with them. Pure.

Owns the meaning of an absent field: it keeps the present value (at creation the default). Invariant: a TopicConfig made
by `initial` or `altered` is within its limits.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from penstock.protocol.limits import DEFAULT_MAX_BATCH_BYTES, MAX_BATCH_BYTES
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as pb

MIN_MAX_BATCH_BYTES = 1024
"""Lowest limit of a batch that a topic may set."""
MAX_RETENTION_MS = 2**53
"""Longest retention that can be named; longer: leave it out."""
FIRST_NODE_COUNT_FOR_TWO = 3
"""From this replication factor on, the default of min_insync_replicas is 2."""


class InvalidConfigError(ValueError):
    """A setting is unknown or out of its range. `name` is the field of v1.TopicConfig."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """All settings of one topic, each with a value. Enums are those of v1; times in ms, None: for ever."""

    min_insync_replicas: int = 1
    cleanup_policy: int = common.CLEANUP_POLICY_DELETE
    retention_time_ms: int | None = None
    retention_bytes: int = 0
    max_batch_bytes: int = DEFAULT_MAX_BATCH_BYTES
    timestamp_type: int = common.TIMESTAMP_TYPE_CREATE
    unclean_leader_election: bool = False

    def to_proto(self) -> pb.TopicConfig:
        """As the API shows it."""
        config = pb.TopicConfig(
            min_insync_replicas=self.min_insync_replicas,
            cleanup_policy=self.cleanup_policy,  # type: ignore[arg-type]  # a plain int of the enum
            retention_bytes=self.retention_bytes,
            max_batch_bytes=self.max_batch_bytes,
            timestamp_type=self.timestamp_type,  # type: ignore[arg-type]  # a plain int of the enum
            unclean_leader_election=self.unclean_leader_election,
        )
        if self.retention_time_ms is not None:
            config.retention_time.FromMilliseconds(self.retention_time_ms)
        return config


_API_NAMES = {"retention_time_ms": "retention_time"}


def defaults(replication_factor: int) -> TopicConfig:
    """Return the settings of a topic that names none."""
    return TopicConfig(min_insync_replicas=2 if replication_factor >= FIRST_NODE_COUNT_FOR_TWO else 1)


def initial(asked: pb.TopicConfig, replication_factor: int) -> TopicConfig:
    """Return the settings of a new topic. Raises InvalidConfigError."""
    return _changed(defaults(replication_factor), asked, replication_factor)


def altered(present: TopicConfig, asked: pb.TopicConfig, reset: Iterable[str], replication_factor: int) -> TopicConfig:
    """Return `present` with the settings in `reset` put back to their defaults, then those in `asked` set.

    Raises InvalidConfigError, also for a name that is both reset and set.
    """
    back = defaults(replication_factor)
    own_names = {_API_NAMES.get(field.name, field.name): field.name for field in fields(TopicConfig)}
    for name in reset:
        if name not in own_names:
            near = difflib.get_close_matches(name, own_names, 1)
            hint = f"did you mean {near[0]}?" if near else f"settings are: {', '.join(own_names)}"
            raise InvalidConfigError(name[:100], f"no setting of a topic is named {name[:100]!r}; {hint}")
        if _is_set(asked, name):
            raise InvalidConfigError(name, f"{name} is both set and reset")
        present = replace(present, **{own_names[name]: getattr(back, own_names[name])})
    return _changed(present, asked, replication_factor)


def _is_set(asked: pb.TopicConfig, name: str) -> bool:
    return any(field.name == name for field, _ in asked.ListFields())


def _changed(base: TopicConfig, asked: pb.TopicConfig, replication_factor: int) -> TopicConfig:
    values: dict[str, Any] = {_own_name(field.name): _value(asked, field.name) for field, _ in asked.ListFields()}
    config = replace(base, **values)
    _check(config, replication_factor)
    return config


def _own_name(name: str) -> str:
    return "retention_time_ms" if name == "retention_time" else name


def _value(asked: pb.TopicConfig, name: str) -> int | bool:
    if name != "retention_time":
        value: int | bool = getattr(asked, name)
        return value
    duration = asked.retention_time
    milliseconds = duration.seconds * 1000 + duration.nanos // 1_000_000
    if not 0 < milliseconds <= MAX_RETENTION_MS:
        raise InvalidConfigError(name, f"retention_time {milliseconds} ms is not in 1..{MAX_RETENTION_MS} ms")
    return milliseconds


def _check(config: TopicConfig, replication_factor: int) -> None:
    if config.min_insync_replicas < 1:
        raise InvalidConfigError("min_insync_replicas", "min_insync_replicas is 0; it must be 1 or more")
    if config.min_insync_replicas > replication_factor:
        text = f"min_insync_replicas {config.min_insync_replicas} is above the replication factor {replication_factor}"
        raise InvalidConfigError("min_insync_replicas", text)
    if config.cleanup_policy != common.CLEANUP_POLICY_DELETE:
        raise InvalidConfigError("cleanup_policy", f"cleanup_policy {config.cleanup_policy} is unknown; 1 is DELETE")
    if config.timestamp_type not in {common.TIMESTAMP_TYPE_CREATE, common.TIMESTAMP_TYPE_APPEND}:
        text = f"timestamp_type {config.timestamp_type} is unknown; 1 is CREATE, 2 is APPEND"
        raise InvalidConfigError("timestamp_type", text)
    if not MIN_MAX_BATCH_BYTES <= config.max_batch_bytes <= MAX_BATCH_BYTES:
        text = f"max_batch_bytes {config.max_batch_bytes} is not in {MIN_MAX_BATCH_BYTES}..{MAX_BATCH_BYTES}"
        raise InvalidConfigError("max_batch_bytes", text)
    if config.retention_bytes >= 2**63:
        raise InvalidConfigError("retention_bytes", "retention_bytes is not below 2^63")
