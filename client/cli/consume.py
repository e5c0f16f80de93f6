"""`penstock consume`: records to standard output, following the log until stopped."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, cast

import typer

from penstock.client import Consumer, Record, Timestamp, TopicPartition
from penstock.client.cli.consume_group import POLL_RECORDS, POLL_TIMEOUT_S, GroupJob, read_in_group
from penstock.client.cli.formats import (
    TSV_COLUMNS,
    Encoding,
    Formatter,
    json_formatter,
    tsv_formatter,
    value_formatter,
)
from penstock.client.cli.lines import PropertyError
from penstock.client.cli.output import EXIT_OK
from penstock.client.cli.settings import Format, Settings, command
from penstock.client.options import ConsumerOptions
from penstock.client.records import Position

_ISOLATIONS = ("read_uncommitted", "read_committed")


class Commit(StrEnum):
    """What a member of a group commits."""

    AUTO = "auto"
    """What was written out."""
    NONE = "none"
    """Nothing: the group begins at the same place the next time."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What to read, and when to stop."""

    servers: str
    topics: tuple[str, ...]
    partitions: tuple[int, ...]
    start: Position
    exit_at_end: bool
    max_records: int | None
    options: ConsumerOptions


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "consume", "bootstrap", "timeout")(consume)


def consume(  # noqa: PLR0913  the options of the command
    settings: Settings,
    *,
    names: Annotated[list[str] | None, typer.Argument(metavar="TOPIC", show_default=False)] = None,
    topic: Annotated[list[str] | None, typer.Option("--topic", help="The same, as Kafka's tools take it.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin with the first record.")] = False,
    offset: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="Begin at an offset, earliest, latest, or @ and a time in ms. Default: latest."
        ),
    ] = None,
    partition: Annotated[list[int] | None, typer.Option(min=0, help="This partition only. Repeatable.")] = None,
    exit_at_end: Annotated[
        bool, typer.Option("--exit-at-end", help="Stop at the end that the log had when the command began.")
    ] = False,
    max_records: Annotated[
        int | None, typer.Option("--max-records", "--max-messages", min=1, help="Stop after so many records.")
    ] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="KEY=VALUE", help="print.key, print.offset, key.separator, null.literal, …"),
    ] = None,
    output_encoding: Annotated[Encoding, typer.Option(help="How keys and values are written.")] = Encoding.RAW,
    group: Annotated[
        str | None,
        typer.Option(
            help="Read as a member of this group: beginning where it has committed, sharing with its members."
        ),
    ] = None,
    commit: Annotated[
        Commit, typer.Option(help="With --group: whether what was written out is committed.")
    ] = Commit.AUTO,
    isolation: Annotated[
        str, typer.Option("--isolation", "--isolation-level", help="read_uncommitted or read_committed.")
    ] = "read_uncommitted",
) -> int:
    """Print the records of topics until stopped by Ctrl-C.

    \b
    Examples:
      penstock consume orders --from-beginning --property print.key=true
      penstock consume orders --from-beginning --exit-at-end --format json
      penstock consume orders --group billing --from-beginning
    """
    topics = tuple(dict.fromkeys([*(names or ()), *(topic or ())]))
    if not topics:
        raise typer.BadParameter("name the topics to read")
    if isolation not in _ISOLATIONS:
        raise typer.BadParameter(f"{isolation!r} is not one of {', '.join(_ISOLATIONS)}", param_hint="--isolation")
    if partition and len(topics) != 1:
        raise typer.BadParameter("--partition goes with one topic only")
    if group is None and commit is not Commit.AUTO:
        raise typer.BadParameter("goes with --group only", param_hint="--commit")
    if group is not None and (partition or offset is not None):
        raise typer.BadParameter("--partition and --offset do not go with --group: the group has its own")
    options = cast(ConsumerOptions, {"isolation": isolation, "request_timeout_ms": int(settings.timeout_s * 1000)})
    formatter = _formatter(settings, prop or (), output_encoding)
    servers = settings.servers()
    job: _Job | GroupJob
    if group is not None:
        begin: Literal["earliest", "latest"] = "earliest" if from_beginning else "latest"
        job = GroupJob(servers, group, topics, begin, commit is Commit.AUTO, exit_at_end, max_records, options)
    else:
        start = _start(from_beginning, offset, partition)
        job = _Job(servers, topics, tuple(partition or ()), start, exit_at_end, max_records, options)
    output = _Output(formatter)
    if settings.format is Format.TSV:
        output.write("\t".join(TSV_COLUMNS).encode() + b"\n")
    return _follow(read_in_group(job, output.records) if isinstance(job, GroupJob) else _read(job, output))


def _start(from_beginning: bool, offset: str | None, partitions: Sequence[int] | None) -> Position:
    if offset is None:
        return "earliest" if from_beginning else "latest"
    if from_beginning:
        raise typer.BadParameter("--offset and --from-beginning exclude each other")
    if offset == "earliest":
        return "earliest"
    if offset == "latest":
        return "latest"
    try:
        number = int(offset.removeprefix("@"))
    except ValueError as error:
        raise typer.BadParameter(
            f"{offset!r} is not an offset, earliest, latest, or @ and a time in ms", param_hint="--offset"
        ) from error
    if offset.startswith("@"):
        return Timestamp(number)
    if number < 0 or not partitions:
        raise typer.BadParameter("an offset is 0 or more and wants --partition", param_hint="--offset")
    return number


def _formatter(settings: Settings, properties: Sequence[str], encoding: Encoding) -> Formatter:
    if settings.format in {Format.JSON, Format.TSV}:
        if properties:
            raise typer.BadParameter(f"does not apply to --format {settings.format}", param_hint="--property")
        return json_formatter(encoding) if settings.is_json else tsv_formatter(encoding)
    try:
        return value_formatter(properties, encoding)
    except PropertyError as error:
        raise typer.BadParameter(str(error), param_hint="--property") from error


class _Output:
    """Standard output as bytes, flushed once a poll."""

    def __init__(self, formatter: Formatter) -> None:
        self._format = formatter

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def records(self, records: Sequence[Record]) -> None:
        self.write(b"".join(map(self._format, records)))


def _follow(reading: Coroutine[Any, Any, None]) -> int:
    """Read until done, or until SIGINT or SIGTERM, or until nobody reads the output: all of them a good end."""
    try:
        asyncio.run(reading)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_OK
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing complains at exit
    return EXIT_OK


async def _read(job: _Job, output: _Output) -> None:
    task = cast("asyncio.Task[None]", asyncio.current_task())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Consumer(job.servers, **job.options) as consumer:
        if job.partitions:
            await consumer.assign([TopicPartition(job.topics[0], one) for one in job.partitions], job.start)
        else:
            await consumer.assign_topics(job.topics, job.start)
        ends = await consumer.end_offsets(consumer.assignment()) if job.exit_at_end else None
        left = job.max_records
        while left != 0 and (ends is None or not _at_end(consumer, ends)):
            wanted = POLL_RECORDS if left is None else min(left, POLL_RECORDS)
            records = await consumer.poll(wanted, POLL_TIMEOUT_S)
            if ends is not None:
                records = [one for one in records if one.offset < ends[TopicPartition(one.topic, one.partition)]]
            if records:
                output.records(records)
            if left is not None:
                left -= len(records)


def _at_end(consumer: Consumer, ends: dict[TopicPartition, int]) -> bool:
    return all(consumer.position(partition) >= end for partition, end in ends.items())
