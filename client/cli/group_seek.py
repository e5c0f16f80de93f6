"""`penstock group seek`: where a group goes on; what it takes, asks and shows."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from penstock.client import Admin, OffsetReset, ResetPoint, Shift, Timestamp, TopicPartition
from penstock.client.cli.group import GroupOption, Name, one_group
from penstock.client.cli.group_text import counted, reset_document
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, Cell, Table, ask, say, show
from penstock.client.cli.settings import Format, Settings, command
from penstock.client.cli.times import parse_time
from penstock.client.cli.topic import confirm

SHOWN_BEFORE = 20
"""Partitions that are shown before the question."""
_SHIFT = re.compile(r"[+-]\d+")


class Selection(NamedTuple):
    """Whose offsets are moved; None of both: of all partitions that have one."""

    topics: list[str] | None
    partitions: list[TopicPartition] | None


def parse_topics(texts: Sequence[str] | None) -> Selection:
    """Read `orders` (all its partitions) and Kafka's `orders:0,1,2`."""
    if not texts:
        return Selection(None, None)
    topics: list[str] = []
    partitions: list[TopicPartition] = []
    for text in texts:
        topic, separator, indexes = text.partition(":")
        if not separator:
            topics.append(topic)
            continue
        try:
            partitions += [TopicPartition(topic, int(index)) for index in indexes.split(",")]
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is not like orders or orders:0,1", param_hint="--topic") from error
    return Selection(topics or None, partitions or None)


def parse_point(text: str) -> ResetPoint:
    """Read earliest, latest, an offset, +N or -N, @ and ms since 1970, or ISO 8601."""
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if _SHIFT.fullmatch(text):
        return Shift(int(text))
    if text.isdecimal():
        return int(text)
    try:
        return Timestamp(int(text.removeprefix("@")) if text.startswith("@") else parse_time(text, "--to"))
    except (ValueError, typer.BadParameter) as error:
        hint = "earliest, latest, an offset, +N, -N, @ and ms since 1970, or like 2026-01-31T12:00:00Z"
        raise typer.BadParameter(f"{text!r} is not {hint}", param_hint="--to") from error


class _Kafka(NamedTuple):
    """The same points as Kafka's tools take them."""

    to_earliest: bool
    to_latest: bool
    to_offset: int | None
    to_datetime: str | None
    shift_by: int | None

    def points(self) -> list[ResetPoint]:
        points: list[ResetPoint] = ["earliest"] if self.to_earliest else []
        points += ["latest"] if self.to_latest else []
        points += [] if self.to_offset is None else [self.to_offset]
        points += [] if self.to_datetime is None else [Timestamp(parse_time(self.to_datetime, "--to-datetime"))]
        return [*points, *([] if self.shift_by is None else [Shift(self.shift_by)])]


def seek(  # noqa: PLR0913  the options of the command
    settings: Settings,
    *,
    name: Name = None,
    group: GroupOption = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC[:P,...]",
            help="This topic, or these partitions of it. Repeatable. Default: all that have a committed offset.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help="earliest, latest, an offset, +N, -N, @ and a time in ms, or ISO 8601."),
    ] = None,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="As Kafka's tools take it.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="As Kafka's tools take it.")] = False,
    to_offset: Annotated[int | None, typer.Option(min=0, help="As Kafka's tools take it.")] = None,
    to_datetime: Annotated[str | None, typer.Option(metavar="TIME", help="As Kafka's tools take it.")] = None,
    shift_by: Annotated[int | None, typer.Option(help="As Kafka's tools take it.")] = None,
) -> int:
    """Let a group without members go on elsewhere: its committed offsets are moved. Stop its members first.

    A time means the first record of that time or a later one; +N and -N are counted from the committed offset, and end
    at the ends of the log.

    \b
    Examples:
      penstock group seek billing --to earliest --dry-run
      penstock group seek billing --topic orders:0,1 --to 2026-01-31T00:00:00Z
      penstock group seek billing --topic orders --to -100 --yes
    """
    wanted, selection = one_group(name, group), parse_topics(topic)
    points = [parse_point(to)] if to is not None else []
    points += _Kafka(to_earliest, to_latest, to_offset, to_datetime, shift_by).points()
    if len(points) != 1:
        raise typer.BadParameter("say where to once, as in `--to earliest`")

    async def move(admin: Admin, *, dry: bool) -> list[OffsetReset]:
        return await admin.reset_offsets(
            wanted, points[0], topics=selection.topics, partitions=selection.partitions, validate_only=dry
        )

    async def once(admin: Admin) -> int:
        would = await move(admin, dry=True)
        going = [one for one in would if one.error is None and one.offset != one.previous_offset]
        if settings.dry_run:
            return _show(settings, wanted, would, "could move")
        if not going:
            return _show(settings, wanted, would, "moves")
        _ask(settings, wanted, going)
        return _show(settings, wanted, await move(admin, dry=False), "moved")

    return ask(settings, once)


def register(app: typer.Typer) -> None:
    """Add the command to `penstock group`."""
    command(app, "seek", "bootstrap", "timeout", "dry_run", "yes")(seek)


def _ask(settings: Settings, group: str, going: Sequence[OffsetReset]) -> None:
    """Show on a terminal what would become of what, then ask."""
    if not settings.yes and sys.stdin.isatty():
        for one in going[:SHOWN_BEFORE]:
            former = "none" if one.previous_offset is None else one.previous_offset
            say(f"  {one.topic}[{one.partition}]  {former} -> {one.offset}")
        if len(going) > SHOWN_BEFORE:
            say(f"  and {len(going) - SHOWN_BEFORE} more")
    confirm(settings, f"Move group {group} in {counted(len(going), 'partition')}?")


def _show(settings: Settings, group: str, resets: Sequence[OffsetReset], verb: str) -> int:
    rows: list[Sequence[Cell]] = [
        (*(one.topic, one.partition, one.previous_offset, one.offset, _change(one)), _reason(one)) for one in resets
    ]
    failed = [one for one in resets if one.error is not None]
    moved = sum(one.error is None and one.offset != one.previous_offset for one in resets)
    head = f"group {group} {verb} in {counted(moved, 'partition')}" if moved else f"group {group} does not move"
    table = Table(("topic", "partition", "former", "offset", "change", "error"), rows)
    document = {
        "group_id": group,
        "partitions": [reset_document(one) for one in resets],
        "moved": moved,
        "dry_run": settings.dry_run,
    }
    parts = [head, table] if rows else [f"group {group} has no committed offsets"]
    show(settings, document, *([table] if settings.format is Format.TSV else parts))
    if not settings.is_json:
        for one in failed:
            say(f"penstock: {one.topic}-{one.partition}: {one.error}")
    return EXIT_FAILED if failed else EXIT_OK


def _change(one: OffsetReset) -> str | None:
    if one.offset is None or one.previous_offset is None:
        return None
    change = one.offset - one.previous_offset
    return f"{change:+}" if change else "0"


def _reason(one: OffsetReset) -> str | None:
    return None if one.error is None else one.error.reason.name
