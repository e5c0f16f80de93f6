"""What a bench gave, in figures and as a JSON document. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from penstock.client.bench.histogram import Histogram
from penstock.client.bench.machine import ProcessUsage
from penstock.client.bench.plan import Plan
from penstock.client.bench.tally import Tally
from penstock.client.descriptions import BrokerUsage
from penstock.protocol.reasons import Reason

Verb: TypeAlias = Literal["produce", "consume", "e2e"]
NOTHING_USED = ProcessUsage(0.0, 0)
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9}


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What a node used in the measured time; None where it is not known, and `note` says why."""

    node_id: int
    cpu_s: float | None
    cpus: float | None
    """Processors kept busy, in the mean."""
    resident_bytes: int | None
    """At the end."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long records took between two events."""

    start: str
    """ "due" or "sent"."""
    end: str
    """ "acknowledged", "written" (with acks none) or "consumed"."""
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Report:
    """One run."""

    verb: Verb
    plan: Plan
    replication: int
    is_fresh: bool
    """The topic was made for it."""
    tally: Tally
    form: str = ""
    """Of the consumer."""
    latencies: Sequence[Latency] = ()
    """The one that the verb is about comes last."""
    nodes: Sequence[NodeUse] = ()
    client: ProcessUsage = NOTHING_USED
    """Of all its processes."""
    watched_s: float = 0.0
    """In which nodes and client used that: until the last answer, which may be long after the last record."""
    warmup_failures: Mapping[str, int] = field(default_factory=dict)
    not_consumed: int = 0
    """Acknowledged in the measured time, and not seen by the consumer."""
    interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every record was acknowledged, and consumed where it was to be."""
        return not (self.tally.failed or self.tally.unknown or self.warmup_failures or self.not_consumed)

    @property
    def records_per_s(self) -> float:
        """Acknowledged (or read) a second."""
        return _per(self.tally.done, self.tally.seconds)

    @property
    def bytes_per_s(self) -> float:
        """See Tally.bytes."""
        return _per(self.tally.bytes, self.tally.seconds)

    @property
    def client_cpus(self) -> float:
        """Processors that the client kept busy, in the mean."""
        return _per(self.client.cpu_s, self.watched_s)


def node_uses(before: Sequence[BrokerUsage], after: Sequence[BrokerUsage], seconds: float) -> list[NodeUse]:
    """Give what each node used between two moments `seconds` apart."""
    first = {used.node_id: used for used in before}
    return [_node_use(first.get(used.node_id), used, seconds) for used in after]


def _node_use(before: BrokerUsage | None, after: BrokerUsage, seconds: float) -> NodeUse:
    if after.error is not None or after.cpu_time_ms is None or after.uptime_ms is None:
        old = after.error is not None and after.error.reason is Reason.UNSUPPORTED
        return NodeUse(after.node_id, None, None, None, "unknown: an older version" if old else "unreachable")
    if before is None or before.cpu_time_ms is None or before.uptime_ms is None:
        return NodeUse(after.node_id, None, None, after.resident_bytes, "was unreachable at the beginning")
    if after.uptime_ms < before.uptime_ms:
        return NodeUse(after.node_id, None, None, after.resident_bytes, "was started anew")
    cpu_s = (after.cpu_time_ms - before.cpu_time_ms) / 1000
    return NodeUse(after.node_id, cpu_s, _per(cpu_s, seconds), after.resident_bytes)


def latency_document(latency: Latency) -> dict[str, Any]:
    """Give the form of a latency in JSON output; the histogram's rows: upper bound in us, count."""
    histogram = latency.histogram
    figures: dict[str, Any] = {"from": latency.start, "to": latency.end, "samples": histogram.count}
    if histogram.count:
        figures |= {f"{name}_ms": histogram.percentile(percent) for name, percent in PERCENTILES.items()}
        figures |= {"max_ms": histogram.max_us / 1000, "mean_ms": round(histogram.mean_ms, 3)}
    return figures | {"histogram_us": histogram.to_json()}


def document(report: Report) -> dict[str, Any]:
    """Give the form of a report in JSON output."""
    tally, client = report.tally, report.client
    nodes = [{**asdict(use), "cpus": _rounded(use.cpus)} for use in report.nodes]
    return {
        "bench": report.verb,
        "topic": report.plan.topic,
        "options": options_document(report),
        "interrupted": report.interrupted,
        "records": tally.done,
        "bytes": tally.bytes,
        "seconds": round(tally.seconds, 6),
        "records_per_s": round(report.records_per_s, 1),
        "bytes_per_s": round(report.bytes_per_s, 1),
        "sent": tally.sent,
        "failed": tally.failed,
        "outcome_unknown": tally.unknown,
        "failures": dict(tally.failures),
        "warmup_failures": dict(report.warmup_failures),
        "not_consumed": report.not_consumed,
        "latencies": [latency_document(latency) for latency in report.latencies],
        "nodes": nodes,
        "client": {
            "cpu_s": round(client.cpu_s, 3),
            "cpus": _rounded(report.client_cpus),
            "resident_bytes": client.resident_bytes,
        },
    }


def options_document(report: Report) -> dict[str, Any]:
    """Give what the run was asked to do, resolved."""
    plan, options = report.plan, dict(report.plan.options)
    asked: dict[str, Any] = {
        "partitions": plan.partitions,
        "replication_factor": report.replication,
        "fresh_topic": report.is_fresh,
        "records": plan.phase.records,
        "duration_s": plan.phase.seconds,
        "warmup_s": plan.warmup_s,
    }
    if report.form:
        asked["form"] = report.form
    if report.verb == "consume" and not report.is_fresh:
        return asked
    asked |= {"rate": plan.rate, "record_bytes": plan.record_bytes, "producers": plan.producers, "keys": plan.keys}
    names = ("acks", "compression", "batch_bytes", "linger_ms", "buffer_bytes")
    return asked | {name: options[name] for name in names if name in options} | {"compressible": plan.compressible}


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
