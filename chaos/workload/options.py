"""What the parts of a workload do: how many, how fast, on which topics. A part with a count of 0 is not there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from penstock.chaos.member.plan import Commits, Stall
from penstock.client.records import Isolation

Acks = Literal["none", "leader", "all"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]

ORDERS = "orders"
LEDGER = "ledger"
SIZED = "sized"
"""Retention by size, that somebody alters."""
TRIMMED = "trimmed"
COMPACTED = "compacted"


@dataclass(frozen=True, slots=True)
class Access:
    """How the clients of one host reach the cluster."""

    bootstrap: str
    address_map: Mapping[str, str] = field(default_factory=dict)
    """Addresses, "host:port", to dial instead of those that nodes advertise: this host's proxies."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic that is written to. It is made by `prepare`; nobody changes it but the trimmers."""

    name: str
    partitions: int
    replication: int = 3
    config: Mapping[str, int | float | str | bool | None] = field(default_factory=dict)
    """Where it does not say otherwise, what is written must stay."""
    drops: bool = False
    """Records go: by these settings, or as trimmers say."""


@dataclass(frozen=True, slots=True)
class Senders:
    """Producers that send by a schedule, whatever comes of it (an open loop): in health, a known throughput."""

    count: int = 6
    rate: float = 220.0
    """Records a second, each."""
    topics: tuple[str, ...] = (ORDERS,)
    acks: Acks = "all"
    idempotent: bool = True
    """Only with acks "all"."""
    sizes: tuple[int, int] = (24, 160)
    """Bytes of a record, from and to."""
    compression: Compression = "none"
    keyed: bool = False
    """Records have keys, which say the partition."""
    keys: int = 64
    """Different ones."""
    tombstones: float = 0.0
    """Share of records without a value; only with keys."""
    linger_ms: float = 10
    delivery_timeout_ms: int = 15_000
    request_timeout_ms: int = 5_000
    most_under_way: int = 1_500
    """Records that have no outcome yet, each sender; above that it leaves out what is due, and counts it as skipped."""
    crash_every_s: float | None = None
    """Now and then, about this far apart, a producer is given up at once and another one is opened."""


@dataclass(frozen=True, slots=True)
class Appenders:
    """Clients that append small batches at an expected offset, one after the other, racing for the same partitions."""

    count: int = 2
    rate: float = 6.0
    """Appends a second at most, each."""
    topics: tuple[str, ...] = (LEDGER,)
    most_values: int = 4
    """Values of a batch, at most."""
    unconditional: float = 0.1
    """The share of appends without an expected offset."""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Readers:
    """Consumers that read to the end and go on; each has an isolation, in turn."""

    count: int = 3
    topics: tuple[str, ...] = (ORDERS, LEDGER)
    isolations: tuple[Isolation, ...] = ("read_committed", "read_uncommitted")
    share: float = 0.7
    """Of the partitions that are there, each reads about this share, and at least one."""
    pace_s: float = 0.1
    """Between two polls: what came meanwhile is given out at once."""
    most_records: int = 2_000
    """Of one poll."""
    seek_every_s: float | None = 10.0
    """About this far apart, a reader goes back to an older position, seldom to the very beginning."""
    seek_back: int = 3_000
    """Records that it goes back, at most."""
    reopen_every_s: float | None = 45.0
    """About this far apart, a reader closes its consumer and goes on with a new one."""


@dataclass(frozen=True, slots=True)
class EndWatchers:
    """Clients that ask the leaders for the ends of the logs."""

    count: int = 1
    topics: tuple[str, ...] = (ORDERS, LEDGER)
    every_s: float = 1.0
    starts: tuple[str, ...] = ()
    """Topics whose logs' starts are asked for as well."""
    one_by_one: bool = False
    """Each asks for one partition at a time, drawn; else for all of a topic, and the slowest leader holds up the answer
    of the others."""


@dataclass(frozen=True, slots=True)
class Rereaders:
    """Consumers of topics that drop records: read from the start, follow for a while, begin anew."""

    count: int = 0
    topics: tuple[str, ...] = (SIZED, TRIMMED, COMPACTED)
    every_s: float = 6.0
    """Between two beginnings."""
    pace_s: float = 0.1
    most_records: int = 500
    """Of one poll."""


@dataclass(frozen=True, slots=True)
class Trimmers:
    """Clients that trim partitions, and alter the retention by size of topics."""

    count: int = 0
    topics: tuple[str, ...] = (TRIMMED,)
    retained: tuple[str, ...] = (SIZED,)
    retention_bytes: tuple[int, int] = (96 * 1024, 384 * 1024)
    """From and to."""
    every_s: float = 0.7
    """Between two changes."""
    alter_share: float = 0.2
    timeout_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Changers:
    """Clients that make, grow, alter, describe and delete topics of their own, one after the other."""

    count: int = 1
    every_s: float = 1.0
    """Between two changes."""
    replication: int = 2
    """Of the topics that nobody writes to: fewer than there are nodes, so that one may be down meanwhile."""
    fresh_replication: int = 3
    most_topics: int = 4
    """Topics that a changer has at a time; nobody writes to them."""
    most_partitions: int = 6
    most_fresh: int = 12
    """Topics with fresh names that a changer writes to and reads back in all; they stay."""
    timeout_ms: int = 10_000


UPSETS: Mapping[str, float] = {"leave": 3.0, "kill": 2.0, "freeze": 2.0, "stall": 1.0}
"""What befalls members, and how often."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one consumer group, each a process of its own."""

    count: int = 4
    """Places: one member at a time in each."""
    at_first: int = 3
    """Places that are filled when the load begins."""
    group: str = "crew"
    topics: tuple[str, ...] = (ORDERS,)
    commits: tuple[Commits, ...] = ("manual", "auto")
    """How members commit, in turn."""
    static: int = 1
    """Places whose members have an instance_id, always the same."""
    every_s: float | None = 2.0
    """About this far apart something befalls a member: it is told to leave, or killed, or frozen, or takes too long; in
    an empty place, a new one joins. None: never."""
    upsets: Mapping[str, float] = field(default_factory=lambda: UPSETS)
    freeze_s: tuple[float, float] = (0.5, 9.0)
    """Shorter and longer than a session."""
    stall_s: tuple[float, float] = (0.5, 8.0)
    """Shorter and longer than max_poll_interval."""
    stalls: tuple[Stall, ...] = ("block", "wait")
    paces_s: tuple[float, ...] = (0.05, 0.3)
    """How long members take for what they are handed, in turn."""
    most_records: tuple[int, ...] = (200, 40)
    """Of one poll, in turn: who takes few has more waiting in its client when its partitions move."""
    session_timeout_ms: int = 5_000
    rebalance_timeout_ms: int = 6_000
    max_poll_interval_ms: int = 5_000
    program: tuple[str, ...] = ()
    """Instead of `lives.PROGRAM`."""


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """A whole workload. Each part is a group of clients; several groups of senders may differ."""

    topics: tuple[TopicPlan, ...] = (TopicPlan(ORDERS, 8), TopicPlan(LEDGER, 4))
    senders: tuple[Senders, ...] = (Senders(),)
    appenders: Appenders = Appenders()
    readers: Readers = Readers()
    ends: EndWatchers = EndWatchers()
    changers: Changers = Changers()
    rereaders: Rereaders = Rereaders()
    trimmers: Trimmers = Trimmers()
    members: tuple[Members, ...] = ()
    """Groups, of different names."""
    prefix: str = ""
    """Before the names of all topics: a cluster where a run was before needs a new one."""

    @property
    def rate(self) -> float:
        """Records a second that the senders send together when nothing is skipped."""
        return sum(group.count * group.rate for group in self.senders)

    def only(self, *parts: str) -> Self:
        """Give the same with these alone: senders, appenders, readers, ends, changers, rereaders, trimmers, members."""
        return replace(
            self,
            senders=self.senders if "senders" in parts else (),
            appenders=self.appenders if "appenders" in parts else replace(self.appenders, count=0),
            readers=self.readers if "readers" in parts else replace(self.readers, count=0),
            ends=self.ends if "ends" in parts else replace(self.ends, count=0),
            changers=self.changers if "changers" in parts else replace(self.changers, count=0),
            rereaders=self.rereaders if "rereaders" in parts else replace(self.rereaders, count=0),
            trimmers=self.trimmers if "trimmers" in parts else replace(self.trimmers, count=0),
            members=self.members if "members" in parts else (),
        )
