"""`penstock bench`: load for a cluster, and what it measures."""

import asyncio
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from penstock.client.bench.machine import patient_gc
from penstock.client.bench.plan import Phase, Plan, PlanError
from penstock.client.bench.read import Form
from penstock.client.bench.report import Report, Verb, document
from penstock.client.bench.run import Bench, FreshTopic, Job
from penstock.client.cli.bench_output import ProgressLines, parts, write_histogram
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, say, show
from penstock.client.cli.produce import ACKS, COMPRESSIONS
from penstock.client.cli.settings import Settings, command
from penstock.client.options import MAX_CLIENT_BATCH_BYTES, ProducerOptions

EXIT_INTERRUPTED = 130
DEFAULT_PARTITIONS = 6
DEFAULT_SECONDS = 10.0
DEFAULT_FILL = 1_000_000
DEFAULT_RECORD_BYTES = 1024
DEFAULT_BATCH_BYTES = 256 * 1024
DEFAULT_COMPRESSION = "none"
MAX_RATE = 100_000_000
MAX_SECONDS = 7 * 24 * 3600
_FORMS = ("records", "batches")

app = typer.Typer(help="Measure what the cluster does under load.", no_args_is_help=True, rich_markup_mode=None)

Topic = Annotated[
    str | None,
    typer.Option(help="A topic that exists, used as it is. Without it one is made, and deleted at the end."),
]
Partitions = Annotated[int | None, typer.Option(min=1, help="Of the topic that is made. Default: 6.")]
Replication = Annotated[
    int | None, typer.Option("--replication-factor", min=1, help="Of the topic that is made. Default: the cluster's.")
]
Rate = Annotated[
    float | None,
    typer.Option(min=0.01, max=MAX_RATE, help="Records a second, each due at its time. Default: as fast as it goes."),
]
RecordBytes = Annotated[int, typer.Option("--record-bytes", "--record-size", min=1, help="Of a record's value.")]
Duration = Annotated[
    float | None, typer.Option(min=0.1, max=MAX_SECONDS, metavar="SECONDS", help="How long to measure. Default: 10.")
]
Records = Annotated[
    int | None, typer.Option("--records", "--num-records", min=1, help="How many records to measure instead.")
]
ReadSeconds = Annotated[
    float | None, typer.Option("--duration", min=0.1, max=MAX_SECONDS, metavar="SECONDS", help="Read no longer.")
]
ReadRecords = Annotated[
    int | None,
    typer.Option(
        "--records", "--num-records", min=1, help="How many to fill in and read: 1,000,000; of --topic: all at most."
    ),
]
Warmup = Annotated[
    float,
    typer.Option("--warmup", min=0, max=MAX_SECONDS, metavar="SECONDS", help="The same work before, not measured."),
]
Acks = Annotated[str, typer.Option("--acks", help="Who must have a record: all, leader, none.")]
BatchBytes = Annotated[int, typer.Option(min=1, max=MAX_CLIENT_BATCH_BYTES, help="A batch is full at this size.")]
LingerMs = Annotated[float, typer.Option(min=0, max=60_000, help="How long a batch waits for more records.")]
BufferBytes = Annotated[int, typer.Option(min=1024, help="Memory of each producer for records on their way.")]
Compression = Annotated[
    str, typer.Option("--compression", "--compression-codec", help="none, gzip, snappy, lz4 or zstd.")
]
Compressible = Annotated[
    bool, typer.Option("--compressible", help="Values are text, not random bytes, which no compression makes smaller.")
]
Producers = Annotated[int, typer.Option(min=1, max=64, help="More than one: each in a process of its own.")]
Keys = Annotated[int, typer.Option(min=0, max=1_000_000, help="Number of different keys, used in turn. 0: no keys.")]
FormOption = Annotated[
    str, typer.Option("--form", help="What the consumer works on: records, one after the other, or batches.")
]
HistogramFile = Annotated[
    typer.FileTextWrite | None,
    typer.Option("--histogram", lazy=False, help="Write the latencies there: tab-separated, 128 steps a doubling."),
]


@dataclass(frozen=True, slots=True)
class _Target:
    """The topic asked for."""

    topic: str | None
    partitions: int | None
    replication_factor: int | None

    def __post_init__(self) -> None:
        if self.topic is not None and (self.partitions or self.replication_factor):
            raise typer.BadParameter(
                "--partitions and --replication-factor are of a topic that is made: not with --topic"
            )

    def fresh(self) -> FreshTopic | None:
        """Give the topic to be made, if one is."""
        if self.topic is not None:
            return None
        name = f"bench-{secrets.token_hex(4)}"
        return FreshTopic(name, self.partitions or DEFAULT_PARTITIONS, self.replication_factor)


def _producing(settings: Settings, acks: str, compression: str, **others: Any) -> ProducerOptions:
    for option, value, choices in (("--acks", acks, ACKS), ("--compression", compression, COMPRESSIONS)):
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)
    timeout_ms = int(settings.timeout_s * 1000)
    options = {"acks": ACKS[acks], "compression": compression, "delivery_timeout_ms": timeout_ms, **others}
    return cast(ProducerOptions, options)  # the two texts were checked above


def _refuse_given(*options: tuple[str, bool]) -> None:
    if given := [option for option, is_given in options if is_given]:
        verb = "is" if len(given) == 1 else "are"
        raise typer.BadParameter(f"{', '.join(given)} {verb} of records that are filled in: not with --topic")


def _measured(duration: float | None, records: int | None) -> Phase:
    return Phase(DEFAULT_SECONDS if duration is None and records is None else duration, records)


_PRODUCE = """Publish records, and measure throughput and the time from due (or sent) to acknowledged.

    \b
    Examples:
      penstock bench produce --rate 5000 --linger-ms 1
      penstock bench produce --record-bytes 100 --records 1000000
    """
_E2E = """Publish records and consume them in the same process: the time from due (or sent) to consumed.

    \b
    Example: penstock bench e2e --rate 1000 --linger-ms 1
    """


def _sending(verb: Verb, text: str) -> Callable[..., int]:
    """Make the command of a verb that publishes; both take the same options."""

    def run(  # noqa: PLR0913  the options of the command
        settings: Settings,
        *,
        topic: Topic = None,
        partitions: Partitions = None,
        replication_factor: Replication = None,
        rate: Rate = None,
        duration: Duration = None,
        records: Records = None,
        warmup: Warmup = 2,
        record_bytes: RecordBytes = DEFAULT_RECORD_BYTES,
        keys: Keys = 0,
        compressible: Compressible = False,
        acks: Acks = "all",
        batch_bytes: BatchBytes = DEFAULT_BATCH_BYTES,
        linger_ms: LingerMs = 5,
        compression: Compression = DEFAULT_COMPRESSION,
        buffer_bytes: BufferBytes = 64 * 1024 * 1024,
        producers: Producers = 1,
        histogram: HistogramFile = None,
    ) -> int:
        sizes = {"batch_bytes": batch_bytes, "linger_ms": linger_ms, "buffer_bytes": buffer_bytes}
        options = _producing(settings, acks, compression, **sizes)
        fresh = _Target(topic, partitions, replication_factor).fresh()
        plan = Plan(
            topic=fresh.name if fresh else topic or "",
            partitions=0,
            record_bytes=record_bytes,
            phase=_measured(duration, records),
            rate=rate,
            warmup_s=warmup,
            keys=keys,
            compressible=compressible,
            run_id=secrets.token_hex(8) if verb == "e2e" else "",
            options=options,
            producers=producers,
        )
        return _run(settings, verb, plan, fresh, histogram=histogram)

    run.__doc__ = text
    return run


command(app, "produce", "bootstrap", "timeout")(_sending("produce", _PRODUCE))
command(app, "e2e", "bootstrap", "timeout")(_sending("e2e", _E2E))


@command(app, "consume", "bootstrap", "timeout")
def consume(  # noqa: PLR0913  the options of the command
    settings: Settings,
    *,
    topic: Topic = None,
    partitions: Partitions = None,
    replication_factor: Replication = None,
    duration: ReadSeconds = None,
    records: ReadRecords = None,
    form: FormOption = "records",
    warmup: Warmup = 2,
    record_bytes: RecordBytes = DEFAULT_RECORD_BYTES,
    keys: Keys = 0,
    compressible: Compressible = False,
    batch_bytes: BatchBytes = DEFAULT_BATCH_BYTES,
    compression: Compression = DEFAULT_COMPRESSION,
) -> int:
    """Read a topic from its start, once, as fast as it goes: one that exists, or one that is filled first.

    \b
    Examples:
      penstock bench consume --record-bytes 100 --form batches
      penstock bench consume --topic orders
    """
    if form not in _FORMS:
        raise typer.BadParameter(f"{form!r} is not one of {', '.join(_FORMS)}", param_hint="--form")
    fresh = _Target(topic, partitions, replication_factor).fresh()
    if fresh is None:
        _refuse_given(
            ("--record-bytes", record_bytes != DEFAULT_RECORD_BYTES),
            ("--keys", keys > 0),
            ("--compressible", compressible),
            ("--batch-bytes", batch_bytes != DEFAULT_BATCH_BYTES),
            ("--compression", compression != DEFAULT_COMPRESSION),
        )
    plan = Plan(
        topic=fresh.name if fresh else topic or "",
        partitions=0,
        record_bytes=record_bytes,
        phase=Phase(duration, DEFAULT_FILL if fresh and records is None else records),
        warmup_s=warmup,
        keys=keys,
        compressible=compressible,
        options=_producing(settings, "all", compression, batch_bytes=batch_bytes),
    )
    return _run(settings, "consume", plan, fresh, form=cast(Form, form))


def _run(
    settings: Settings,
    verb: Verb,
    plan: Plan,
    fresh: FreshTopic | None,
    *,
    form: Form = "records",
    histogram: typer.FileTextWrite | None = None,
) -> int:
    if verb != "consume":
        try:
            plan.check()
        except PlanError as error:
            raise typer.BadParameter(str(error)) from error
    job = Job(verb, settings.servers(), settings.timeout_s, plan, fresh, form)
    bench = Bench(job, ProgressLines(), lambda text: say(f"penstock: {text}"))
    try:
        with patient_gc():
            report = asyncio.run(_until_stopped(bench))
    except asyncio.CancelledError:
        say("penstock: interrupted")
        return EXIT_INTERRUPTED
    show(settings, document(report), *parts(report))
    if histogram is not None:
        write_histogram(report, histogram)
    if report.interrupted:
        say("penstock: interrupted; the figures are of what was done until then")
        return EXIT_INTERRUPTED
    return EXIT_OK if report.is_complete else EXIT_FAILED


async def _until_stopped(bench: Bench) -> Report:
    """Run it; a first signal ends it early but with a report, a second one, or one before it is under way, at once."""
    task = cast("asyncio.Task[Report]", asyncio.current_task())

    def stop() -> None:
        if bench.stopped.is_set() or not bench.is_under_way:
            task.cancel()
        else:
            bench.stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return await bench.run()
