"""Settings of a topic: defaults, changes asked for, and what is wrong with them. Pure.

Owns the meaning of an absent field: it keeps the present value (at creation the default). Invariant: a TopicConfig made
by `initial` or `altered` is within its limits.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from penstock.protocol.limits import (
    DEFAULT_DELETE_RETENTION_MS,
    DEFAULT_MAX_BATCH_BYTES,
    DEFAULT_MIN_DIRTY_RATIO,
    DEFAULT_TIMESTAMP_AFTER_MAX_MS,
    MAX_BATCH_BYTES,
    MAX_DURATION_MS,
)
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as pb

MIN_MAX_BATCH_BYTES = 1024
"""Lowest limit of a batch that a topic may set."""
FIRST_NODE_COUNT_FOR_TWO = 3
"""From this replication factor on, the default of min_insync_replicas is 2."""


class InvalidConfigError(ValueError):
    """A setting is unknown or out of its range. `name` is the field of v1.TopicConfig."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """All settings of one topic, each with a value. Enums are those of v1; times in ms, None: none."""

    min_insync_replicas: int = 1
    cleanup_policy: int = common.CLEANUP_POLICY_DELETE
    retention_time_ms: int | None = None
    retention_bytes: int = 0
    max_batch_bytes: int = DEFAULT_MAX_BATCH_BYTES
    timestamp_type: int = common.TIMESTAMP_TYPE_CREATE
    unclean_leader_election: bool = False
    delete_retention_ms: int = DEFAULT_DELETE_RETENTION_MS
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int | None = None
    min_dirty_ratio: float = DEFAULT_MIN_DIRTY_RATIO
    timestamp_before_max_ms: int | None = None
    timestamp_after_max_ms: int = DEFAULT_TIMESTAMP_AFTER_MAX_MS

    @property
    def compacts(self) -> bool:
        """Whether of each key only the latest record is kept, so that each must have one."""
        return self.cleanup_policy in _COMPACTING

    @property
    def deletes(self) -> bool:
        """Whether the oldest records go by retention_time and retention_bytes."""
        return self.cleanup_policy in _DELETING

    def to_proto(self) -> pb.TopicConfig:
        """As the API shows it."""
        config = pb.TopicConfig(
            min_insync_replicas=self.min_insync_replicas,
            cleanup_policy=self.cleanup_policy,  # type: ignore[arg-type]  # a plain int of the enum
            retention_bytes=self.retention_bytes,
            max_batch_bytes=self.max_batch_bytes,
            timestamp_type=self.timestamp_type,  # type: ignore[arg-type]  # a plain int of the enum
            unclean_leader_election=self.unclean_leader_election,
            min_dirty_ratio=self.min_dirty_ratio,
        )
        for name, own_name in _DURATIONS.items():
            milliseconds = getattr(self, own_name)
            if milliseconds is not None:
                getattr(config, name).FromMilliseconds(milliseconds)
        return config


_COMPACTING = frozenset({common.CLEANUP_POLICY_COMPACT, common.CLEANUP_POLICY_COMPACT_AND_DELETE})
_DELETING = frozenset({common.CLEANUP_POLICY_DELETE, common.CLEANUP_POLICY_COMPACT_AND_DELETE})
_DURATIONS = {
    "retention_time": "retention_time_ms",
    "delete_retention_time": "delete_retention_ms",
    "min_compaction_lag": "min_compaction_lag_ms",
    "max_compaction_lag": "max_compaction_lag_ms",
    "timestamp_before_max": "timestamp_before_max_ms",
    "timestamp_after_max": "timestamp_after_max_ms",
}
"""Settings that are times: names of the API, and of TopicConfig."""
_ABOVE_ZERO = frozenset({"retention_time", "max_compaction_lag"})
_API_NAMES = {own_name: name for name, own_name in _DURATIONS.items()}


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
    _check_together(config, asked)
    return config


def _own_name(name: str) -> str:
    return _DURATIONS.get(name, name)


def _value(asked: pb.TopicConfig, name: str) -> int | bool | float:
    if name not in _DURATIONS:
        value: int | bool | float = getattr(asked, name)
        return value
    duration = getattr(asked, name)
    milliseconds: int = duration.seconds * 1000 + duration.nanos // 1_000_000
    least = 1 if name in _ABOVE_ZERO else 0
    if not least <= milliseconds <= MAX_DURATION_MS:
        raise InvalidConfigError(name, f"{name} {milliseconds} ms is not in {least}..{MAX_DURATION_MS} ms")
    return milliseconds


def _check(config: TopicConfig, replication_factor: int) -> None:
    if config.min_insync_replicas < 1:
        raise InvalidConfigError("min_insync_replicas", "min_insync_replicas is 0; it must be 1 or more")
    if config.min_insync_replicas > replication_factor:
        text = f"min_insync_replicas {config.min_insync_replicas} is above the replication factor {replication_factor}"
        raise InvalidConfigError("min_insync_replicas", text)
    if config.cleanup_policy not in _COMPACTING | _DELETING:
        text = f"cleanup_policy {config.cleanup_policy} is unknown; 1 is DELETE, 2 COMPACT, 3 COMPACT_AND_DELETE"
        raise InvalidConfigError("cleanup_policy", text)
    if config.timestamp_type not in {common.TIMESTAMP_TYPE_CREATE, common.TIMESTAMP_TYPE_APPEND}:
        text = f"timestamp_type {config.timestamp_type} is unknown; 1 is CREATE, 2 is APPEND"
        raise InvalidConfigError("timestamp_type", text)
    if not MIN_MAX_BATCH_BYTES <= config.max_batch_bytes <= MAX_BATCH_BYTES:
        text = f"max_batch_bytes {config.max_batch_bytes} is not in {MIN_MAX_BATCH_BYTES}..{MAX_BATCH_BYTES}"
        raise InvalidConfigError("max_batch_bytes", text)
    if config.retention_bytes >= 2**63:
        raise InvalidConfigError("retention_bytes", "retention_bytes is not below 2^63")
    if not 0 <= config.min_dirty_ratio <= 1:  # nor NaN
        raise InvalidConfigError("min_dirty_ratio", f"min_dirty_ratio {config.min_dirty_ratio} is not in 0..1")


def _check_together(config: TopicConfig, asked: pb.TopicConfig) -> None:
    """Refuse settings that do not fit each other, by the name of the one to change."""
    longest, least = config.max_compaction_lag_ms, config.min_compaction_lag_ms
    if longest is not None and longest < least:
        at_fault = "max_compaction_lag" if _is_set(asked, "max_compaction_lag") else "min_compaction_lag"
        text = f"max_compaction_lag {longest} ms is below min_compaction_lag {least} ms"
        raise InvalidConfigError(at_fault, text)
    if config.deletes:
        return
    # also what was set earlier: it would begin to drop records unasked, should the policy become compact,delete
    for name, value in (("retention_time", config.retention_time_ms), ("retention_bytes", config.retention_bytes)):
        if value:
            way_out = "leave it out" if _is_set(asked, name) else "the topic has it: reset it in the same request"
            text = f"{name} has no effect where cleanup_policy is compact; {way_out}, or have compact,delete"
            raise InvalidConfigError(name, text)
