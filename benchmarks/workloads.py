"""What is measured, the same for every system. docs/performance.md explains the choice.

A workload is one topic (named after it, made anew by the system), one client process and one kind of work:

    kind          work                                                              measured
    throughput    `records` records as fast as the client takes them                records and bytes a second: first
                                                                                    send to last acknowledgement
    open_loop     `rate` records a second at their due times, whatever happens,     latency from the time a record was
                  for `seconds`; record i goes to partition i mod partitions        due (so nothing is omitted) to its
                                                                                    acknowledgement in the application
    series        one batch of one record in flight, `records` times                latency of each
    consume       read `records` records of a filled topic once, from the start     records a second: subscription to
                                                                                    last record
    tail          `open_loop`, with a consumer in the same process                  latency from due to consumed

The throughput kinds let the client choose the partition (no key), as it does by itself. Every kind has a warm-up of the
same work, which is not counted. Work that fails fails the run.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal["throughput", "open_loop", "series", "consume", "tail"]
Form = Literal["records", "batches"]
"""What the application sees: a callback (or a loop turn) a record, or one a batch."""
Acks = Literal["leader", "all"]
ACKS_LEADER: Acks = "leader"
ACKS_ALL: Acks = "all"

KIB = 1024


@dataclass(frozen=True, slots=True)
class Workload:
    """See the module. Sizes in bytes; a record is its value alone."""

    name: str
    kind: Kind
    partitions: int
    replication: int
    acks: Acks
    record_bytes: int
    records: int = 0
    rate: int = 0
    """Records a second, over all partitions."""
    seconds: float = 0.0
    warm_records: int = 0
    """Of the kinds that count records."""
    warm_seconds: float = 0.0
    """Of the kinds that have a rate."""
    batch_bytes: int = 64 * KIB
    """Largest batch that the client makes."""
    fixed_batches: bool = False
    """batch_bytes is what is measured: a peer's client keeps to it too, where it would go by its own project's size."""
    linger_ms: float = 5.0
    form: Form = "records"
    cold: bool = False
    """consume: the servers are started anew before, so that nothing is in their own memory."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Workload":
        """From `to_json`."""
        return cls(**content)


def workloads(*, short: bool) -> list[Workload]:
    """All of them, in their order. `short`: fewer records and seconds, the same shapes."""
    part = 0.25 if short else 1.0
    seconds, warm_seconds = (5.0, 2.0) if short else (10.0, 3.0)

    def counted(base: Workload, records: int) -> Workload:
        return replace(base, records=int(records * part), warm_records=int(records * part / 5))

    def timed(base: Workload, rate: int) -> Workload:
        return replace(base, rate=rate, seconds=seconds, warm_seconds=warm_seconds, linger_ms=1.0)

    small = counted(Workload("small-rf3-all", "throughput", 6, 3, ACKS_ALL, 100), 1_000_000)
    one = counted(Workload("one-100b", "throughput", 1, 3, ACKS_ALL, 100), 1_000_000)
    large = counted(Workload("batch", "throughput", 10, 3, ACKS_ALL, KIB, form="batches", fixed_batches=True), 600_000)
    paced = Workload("open", "open_loop", 10, 3, ACKS_ALL, KIB)
    consume = counted(Workload("consume-records", "consume", 6, 3, ACKS_ALL, 100), 2_000_000)
    series = Workload("series", "series", 1, 3, ACKS_ALL, 100, linger_ms=0.0)
    return [
        # (a) a million small records
        replace(small, name="small-rf1-leader", replication=1, acks=ACKS_LEADER),
        replace(small, name="small-rf3-leader", acks=ACKS_LEADER),
        small,
        replace(small, name="small-rf3-all-batches", form="batches"),
        # (b) latency at a rate
        replace(timed(paced, 5_000), name="open-5k"),
        replace(timed(paced, 10_000), name="open-10k"),
        # (c) one partition as fast as it goes; batches of 64 KiB to 1 MiB over ten
        one,
        replace(counted(one, 300_000), name="one-1k", record_bytes=KIB),
        *(replace(large, name=f"batch-{size // KIB}k", batch_bytes=size) for size in (64 * KIB, 256 * KIB, 1024 * KIB)),
        # (d) many partitions, the same total rate
        replace(timed(paced, 2_000), name="partitions-10"),
        replace(timed(paced, 2_000), name="partitions-1000", partitions=1_000),
        # (e) consumption: what was just written, what is on the disk, what comes in
        consume,
        replace(consume, name="consume-batches", form="batches"),
        replace(consume, name="consume-cold", form="batches", cold=True),
        replace(timed(paced, 5_000), name="tail-5k", kind="tail"),
        # (f) one small batch in flight
        counted(series, 4_000),
    ]
