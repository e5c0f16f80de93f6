"""`penstock produce`: each line of standard input a record."""

import asyncio
import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from penstock.client import BufferFullError, Delivery, PenstockError, Producer
from penstock.client.cli.lines import LineError, LineParser, PropertyError
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, error_document, say, show
from penstock.client.cli.settings import Settings, command
from penstock.client.cli.topic import Name, TopicOption, one_topic
from penstock.client.options import ProducerOptions
from penstock.protocol.reasons import Outcome

CHUNK_BYTES = 1 << 20
CHUNKS_AHEAD = 4
"""Chunks of input read ahead of what the producer took."""
FAILURES_SHOWN = 10
RECORDS_A_TURN = 1_000
"""Records sent before the event loop gets its turn."""
ACKS = {"none": "none", "0": "none", "leader": "leader", "1": "leader", "all": "all", "-1": "all"}
COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(slots=True)
class Tally:
    """What became of the records so far."""

    sent: int = 0
    bytes_read: int = 0
    acknowledged: Counter[int] = field(default_factory=Counter)
    """By partition."""
    failures: Counter[str] = field(default_factory=Counter)
    """By reason; those of unknown outcome are in `unknown` instead."""
    unknown: int = 0
    shown: list[tuple[int, PenstockError]] = field(default_factory=list)
    """The first few, with their line numbers."""

    def deliver(self, line: int, delivery: Delivery | None, error: PenstockError | None) -> None:
        """Count the outcome of the record of a line."""
        if delivery is not None:
            self.acknowledged[delivery.partition] += 1
        elif error is not None:
            if error.outcome is Outcome.UNKNOWN:
                self.unknown += 1
            else:
                self.failures[error.reason.name] += 1
            if len(self.shown) < FAILURES_SHOWN:
                self.shown.append((line, error))

    @property
    def failed(self) -> int:
        """Records that were definitely not appended."""
        return self.failures.total()


class _Stopped(Exception):  # noqa: N818  not an error of ours: the reason why input ended early
    """Input ended early; the message says why and where."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "produce", "bootstrap", "timeout")(produce)


def produce(  # noqa: PLR0913  the options of the command
    settings: Settings,
    *,
    name: Name = None,
    topic: TopicOption = None,
    prop: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="KEY=VALUE", help="parse.key, key.separator, parse.headers, null.marker, …"),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Key of every record.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Send everything to this partition.")] = None,
    acks: Annotated[
        str, typer.Option("--acks", "--request-required-acks", help="Who must have it: all, leader, none.")
    ] = "all",
    compression: Annotated[
        str, typer.Option("--compression", "--compression-codec", help="none, gzip, snappy, lz4 or zstd.")
    ] = "none",
    linger_ms: Annotated[float, typer.Option(min=0, help="How long to wait for more records to send together.")] = 5,
) -> int:
    """Publish each line of standard input as a record. Exit code 1 if any was not acknowledged.

    \b
    Examples:
      echo hello | penstock produce orders
      penstock produce orders --property parse.key=true --property key.separator=, < orders.csv
    """
    wanted = one_topic(name, topic)
    for option, value, choices in (("--acks", acks, ACKS), ("--compression", compression, COMPRESSIONS)):
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)
    try:
        parser = LineParser.of(prop or (), key)
    except PropertyError as error:
        raise typer.BadParameter(str(error), param_hint="--property") from error
    options = cast(
        ProducerOptions,  # the two texts were checked above
        {
            "acks": ACKS[acks],
            "compression": compression,
            "linger_ms": linger_ms,
            "delivery_timeout_ms": int(settings.timeout_s * 1000),
        },
    )
    job = _Job(settings.servers(), wanted, partition, parser, options)
    stopped = job.run()
    _summarize(settings, job.tally, wanted, stopped)
    return EXIT_FAILED if stopped or job.tally.failed or job.tally.unknown else EXIT_OK


class _Job:
    """One run over the input."""

    def __init__(
        self, servers: str, topic: str, partition: int | None, parser: LineParser, options: ProducerOptions
    ) -> None:
        self.tally = Tally()
        self._servers = servers
        self._topic = topic
        self._partition = partition
        self._parser = parser
        self._options = options

    def run(self) -> str | None:
        """Send everything; why the input ended early, or None. What was sent is always waited for."""
        try:
            asyncio.run(self._run())
        except _Stopped as reason:
            return str(reason)
        return None

    async def _run(self) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        async with Producer(self._servers, **self._options) as producer:
            try:
                with _Progress(self.tally):
                    await self._send_lines(producer)
                    await producer.flush()
            except (asyncio.CancelledError, LineError) as reason:
                if isinstance(reason, LineError):
                    text = f"line {self.tally.sent + 1} {reason}; it and what follows was not sent"
                else:
                    task.uncancel()  # Ctrl-C: take no more input, but learn what became of what was sent
                    text = f"interrupted after line {self.tally.sent}"
                await producer.flush()
                raise _Stopped(text) from reason

    async def _send_lines(self, producer: Producer) -> None:
        async for lines in _chunks_of_lines(sys.stdin.fileno()):
            for number, line in enumerate(lines, start=1):
                await self._send(producer, line)
                if number % RECORDS_A_TURN == 0:
                    await asyncio.sleep(0)

    async def _send(self, producer: Producer, line: bytes) -> None:
        key, value, headers = self._parser.parse(line)
        number = self.tally.sent + 1

        def on_delivery(delivery: Delivery | None, error: PenstockError | None) -> None:
            self.tally.deliver(number, delivery, error)

        while True:
            try:
                producer.send_nowait(
                    self._topic, value, key=key, headers=headers, partition=self._partition, on_delivery=on_delivery
                )
            except BufferFullError:
                await producer.wait_for_room()
            except PenstockError as error:  # refused at once, as a record that is too large
                on_delivery(None, error)
                break
            else:
                break
        self.tally.sent = number
        self.tally.bytes_read += len(line) + 1


async def _chunks_of_lines(descriptor: int) -> AsyncIterator[list[bytes]]:
    """Give the lines of a file as they come, in lists. A last line need not end with a newline."""
    rest = b""
    async for chunk in _chunks(descriptor):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [line.removesuffix(b"\r") for line in lines]
    if rest:
        yield [rest.removesuffix(b"\r")]


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    """Read a file of any kind in a thread of its own. A daemon: nobody waits for a terminal's next line at the end."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    credit = threading.Semaphore(CHUNKS_AHEAD)

    def read() -> None:
        chunk = b"-"
        while chunk:
            credit.acquire()
            chunk = os.read(descriptor, CHUNK_BYTES)
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the loop was closed: nobody wants it any more
                return

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while chunk := await chunks.get():
        yield chunk
        credit.release()


class _Progress:
    """A bar on standard error, where that is a terminal and the input is not typed; redrawn by rich's own thread."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        shown = sys.stderr.isatty() and not sys.stdin.isatty()
        columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)
        self._task: TaskID | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if not self._bar.disable:
            self._bar.start()
            self._task = self._bar.add_task("", total=_size_of_input())
            self._update()

    def _update(self) -> None:
        if self._task is not None:
            done = self._tally.acknowledged.total()
            text = f"{self._tally.sent:,} sent, {done:,} acknowledged"
            self._bar.update(self._task, completed=self._tally.bytes_read, description=text)
            self._timer = asyncio.get_running_loop().call_later(0.2, self._update)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._bar.stop()


def _size_of_input() -> int | None:
    status = os.fstat(sys.stdin.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _summarize(settings: Settings, tally: Tally, topic: str, stopped: str | None) -> None:
    done = tally.acknowledged.total()
    if settings.is_json:
        document: dict[str, Any] = {"topic": topic, "records": tally.sent, "acknowledged": done}
        document |= {"failed": tally.failed, "outcome_unknown": tally.unknown, "failures": dict(tally.failures)}
        document |= {"partitions": {str(one): count for one, count in sorted(tally.acknowledged.items())}}
        if tally.shown or stopped:
            document["error"] = _error_of(tally, stopped)
        show(settings, document)
        return
    for text in _failure_lines(tally):
        say(f"penstock: {text}")
    if stopped:
        say(f"penstock: {stopped}")
    where = f" in {len(tally.acknowledged)} partition{'s' * (len(tally.acknowledged) != 1)}" if done else ""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    unknown = f", {tally.unknown:,} of unknown outcome (may or may not be in the log)" if tally.unknown else ""
    say(f"{done:,} of {tally.sent:,} records acknowledged{where}{failed}{unknown}")


def _failure_lines(tally: Tally) -> Iterable[str]:
    for line, error in tally.shown:
        yield f"line {line}: {error}"
    hidden = tally.failed + tally.unknown - len(tally.shown)
    if hidden:
        yield f"and {hidden:,} more"


def _error_of(tally: Tally, stopped: str | None) -> dict[str, Any]:
    if stopped:
        return {"reason": "INPUT", "message": stopped, "metadata": {}}
    line, error = tally.shown[0]
    document = error_document(error)
    return document | {"metadata": document["metadata"] | {"line": str(line)}}
