"""The node's configuration file (TOML): what may stand in it, its defaults, and precise errors for everything else.

Owns every setting of a node. Never reads the environment; never guesses: an unknown key is refused with the nearest
known one. The reference for users is docs/operations.md.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from penstock.protocol.limits import MAX_PARTITIONS_PER_TOPIC


class ConfigError(Exception):
    """The file cannot be used; the message names file, key and what is wrong."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read `host:port`; an IPv6 host stands in brackets. Raises ValueError."""
        host, separator, port = text.rpartition(":")
        if not separator or not host:
            raise ValueError(f"{text!r} is not host:port")
        if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
            raise ValueError(f"{text!r} is not host:port; an IPv6 host stands in brackets, [::1]:9092")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"port of {text!r} is not in 1..65535")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Limits:
    """Named bounds and times; each may be set in the table [limits]. Times in ms, sizes in bytes."""

    heartbeat_interval_ms: int = 300
    session_timeout_ms: int = 1_500
    """A node silent for this long is fenced, and fences itself."""
    election_timeout_min_ms: int = 300
    election_timeout_max_ms: int = 600
    preferred_leader_delay_ms: int = 10_000
    """How long a preferred replica must have been in sync before leadership returns to it."""
    replica_lag_max_ms: int = 3_000
    """A follower that did not reach the log end within this leaves the ISR (rule 29)."""
    produce_timeout_max_ms: int = 30_000
    """Longest wait for in-sync replicas before a write is answered OUTCOME_UNKNOWN."""
    produce_stream_bytes: int = 32 * 1024 * 1024
    """Unanswered batches of one Produce stream; above it the node reads no further from the stream."""
    produce_node_bytes: int = 256 * 1024 * 1024
    """Unanswered batches of all Produce streams; above it batches are refused as OVERLOADED."""
    consume_response_bytes: int = 1024 * 1024
    replication_credit_bytes: int = 8 * 1024 * 1024
    tail_cache_bytes: int = 64 * 1024 * 1024
    producer_expiry_ms: int = 86_400_000
    """An idle producer, and a request_id of Publish, is remembered at least this long."""
    fsync_interval_ms: int = 100
    """At durability interval: longest time between two fsyncs."""
    store_bytes: int = 0
    """Appends are refused above this; 0: what the file system has, less a reserve."""
    store_reserve_bytes: int = 256 * 1024 * 1024
    """Left to the file system; at most an eighth of it."""
    store_ballast_bytes: int = 64 * 1024 * 1024
    """Allocated for deleting on a disk that others filled; at most an eighth of the file system, or of store_bytes."""
    store_watermark_percent: int = 85
    """From this share of its capacity on the store counts as nearly full."""
    store_map_bytes: int = 1 << 40
    """Address space reserved for the store's memory map (sparse)."""
    compaction_interval_ms: int = 15_000
    """Between two looks at which logs are to be compacted."""
    compaction_key_bytes: int = 160 * 1024 * 1024
    """Memory for the keys of the one compaction that runs; of a log with more keys a part is compacted at a time."""
    offsets_topic_partitions: int = 16
    """Of __offsets, when it is made; from then on it has that many."""
    offsets_retention_ms: int = 604_800_000
    """Offsets of a group without members are kept at least this long."""
    group_session_timeout_min_ms: int = 1_000
    group_session_timeout_max_ms: int = 1_800_000
    """What a member of a group may ask for as its session_timeout."""
    shutdown_grace_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All settings of one node."""

    node_id: int
    data_dir: Path
    client_listen: Endpoint
    peer_listen: Endpoint
    client_advertise: Endpoint
    peer_advertise: Endpoint
    voters: Mapping[int, Endpoint]
    peer_override: Mapping[int, Endpoint] = field(default_factory=dict)
    """Addresses to dial instead of the advertised ones (the chaos suite's proxies)."""
    rack: str = ""
    durability: str = "commit"
    log_level: str = "info"
    limits: Limits = Limits()

    @property
    def store_dir(self) -> Path:
        """Where the partition data lives."""
        return self.data_dir / "store"

    @property
    def raft_dir(self) -> Path:
        """Where the metadata journal lives."""
        return self.data_dir / "raft"


DURABILITIES = ("commit", "interval", "os")
LOG_LEVELS = ("debug", "info", "warning", "error")
_TOP = {
    "node_id": int,
    "data_dir": str,
    "rack": str,
    "durability": str,
    "log_level": str,
    "listen": dict,
    "advertise": dict,
    "voters": dict,
    "peer_override": dict,
    "limits": dict,
    "security": dict,
}


class _Reader:
    """Reads one file; every problem names the file and the key."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self.path = path
        self.table = table

    def problem(self, key: str, text: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key}: {text}")

    def known(self, table: Mapping[str, Any], names: Mapping[str, type], prefix: str = "") -> None:
        for key, value in table.items():
            if key not in names:
                near = difflib.get_close_matches(key, names, 1)
                hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(sorted(names))}"
                raise self.problem(prefix + key, "no such setting" + hint)
            if not isinstance(value, names[key]) or (names[key] is int and isinstance(value, bool)):
                raise self.problem(prefix + key, f"wants {_words(names[key])}, not {value!r}")

    def required(self, key: str) -> Any:
        if key not in self.table:
            raise self.problem(key, "is required and missing")
        return self.table[key]

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = str(self.table.get(key, choices[0]))
        if value not in choices:
            raise self.problem(key, f"is {value!r}, not one of {', '.join(choices)}")
        return value

    def endpoint(self, key: str, text: str) -> Endpoint:
        try:
            return Endpoint.parse(text)
        except ValueError as error:
            raise self.problem(key, str(error)) from error

    def listeners(self, section: str) -> dict[str, Endpoint]:
        table = self.table.get(section, {})
        self.known(table, {"client": str, "peer": str}, f"{section}.")
        return {name: self.endpoint(f"{section}.{name}", text) for name, text in table.items()}

    def by_node(self, section: str) -> dict[int, Endpoint]:
        result = {}
        for key, text in self.table.get(section, {}).items():
            if not key.isdecimal() or int(key) < 1:
                raise self.problem(f"{section}.{key}", "wants a node id, a whole number from 1 on")
            if not isinstance(text, str):
                raise self.problem(f"{section}.{key}", f"wants a text, not {text!r}")
            result[int(key)] = self.endpoint(f"{section}.{key}", text)
        return result

    def limits(self) -> Limits:
        table = self.table.get("limits", {})
        self.known(table, {f.name: int for f in fields(Limits)}, "limits.")
        for key, value in table.items():
            if value < 0 or (value == 0 and key != "store_bytes"):
                raise self.problem(f"limits.{key}", f"must be above 0, not {value}")
        limits = Limits(**table)
        if limits.election_timeout_max_ms <= limits.election_timeout_min_ms:
            raise self.problem("limits.election_timeout_max_ms", "must be above election_timeout_min_ms")
        if limits.session_timeout_ms < 3 * limits.heartbeat_interval_ms:
            raise self.problem("limits.session_timeout_ms", "must be at least 3 times heartbeat_interval_ms")
        if limits.offsets_topic_partitions > MAX_PARTITIONS_PER_TOPIC:
            raise self.problem("limits.offsets_topic_partitions", f"must be at most {MAX_PARTITIONS_PER_TOPIC}")
        if limits.group_session_timeout_max_ms < limits.group_session_timeout_min_ms:
            raise self.problem("limits.group_session_timeout_max_ms", "must not be below group_session_timeout_min_ms")
        if not 10 < limits.store_watermark_percent < 95:
            raise self.problem("limits.store_watermark_percent", "must be above 10 and below 95")
        return limits


def _words(kind: type) -> str:
    return {int: "a whole number", str: "a text", dict: "a table", bool: "true or false"}[kind]


def load(path: Path) -> NodeConfig:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    reader = _Reader(path, table)
    reader.known(table, _TOP)
    config = _build(reader)
    _check(reader, config)
    return config


def _build(reader: _Reader) -> NodeConfig:
    listen = reader.listeners("listen")
    for name in ("client", "peer"):
        if name not in listen:
            raise reader.problem(f"listen.{name}", "is required and missing")
    advertise = listen | reader.listeners("advertise")
    return NodeConfig(
        node_id=reader.required("node_id"),
        data_dir=(reader.path.parent / reader.required("data_dir")).resolve(),
        client_listen=listen["client"],
        peer_listen=listen["peer"],
        client_advertise=advertise["client"],
        peer_advertise=advertise["peer"],
        voters=reader.by_node("voters"),
        peer_override=reader.by_node("peer_override"),
        rack=str(reader.table.get("rack", "")),
        durability=reader.choice("durability", DURABILITIES),
        log_level=str(reader.table.get("log_level", "info")),
        limits=reader.limits(),
    )


def _check(reader: _Reader, config: NodeConfig) -> None:
    if config.node_id < 1:
        raise reader.problem("node_id", f"must be 1 or more, not {config.node_id}")
    if config.log_level not in LOG_LEVELS:
        raise reader.problem("log_level", f"is {config.log_level!r}, not one of {', '.join(LOG_LEVELS)}")
    if len(config.voters) not in {1, 3, 5}:
        raise reader.problem("voters", f"must name 1, 3 or 5 nodes, not {len(config.voters)}")
    if config.client_listen == config.peer_listen:
        raise reader.problem("listen.peer", "is the same address as listen.client")
    security = reader.table.get("security", {})
    reader.known(security, {"allow_insecure_listen": bool}, "security.")
    for key, endpoint in (("listen.client", config.client_listen), ("listen.peer", config.peer_listen)):
        if not endpoint.is_loopback and not security.get("allow_insecure_listen", False):
            raise reader.problem(
                key,
                f"{endpoint} is reachable from other machines, and this version has no TLS; "
                "set security.allow_insecure_listen = true only on a network that you trust",
            )
    for section, endpoint in (("client", config.client_advertise), ("peer", config.peer_advertise)):
        if endpoint.host in {"0.0.0.0", "::"}:  # noqa: S104  refused, not bound
            raise reader.problem(f"advertise.{section}", f"{endpoint} is no address that others can dial")
