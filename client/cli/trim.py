"""`penstock topic trim`: what it takes, asks and shows."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from penstock.client import Admin, PartitionOffset, Timestamp, TrimmedPartition, TrimPoint
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, Cell, Table, ask, error_document, say, show
from penstock.client.cli.settings import Format, Settings, command
from penstock.client.cli.times import parse_time
from penstock.client.cli.topic import Name, TopicOption, confirm, one_topic
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason


def trim(  # noqa: PLR0913  the options of the command
    settings: Settings,
    *,
    name: Name = None,
    topic: TopicOption = None,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="This partition only. Repeatable. Default: all.")
    ] = None,
    before_offset: Annotated[
        int | None, typer.Option(min=0, metavar="OFFSET", help="Delete the records below this offset.")
    ] = None,
    before_time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Delete all before the first record of this time: ISO 8601, or ms since 1970."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Delete all records that are committed.")] = False,
) -> int:
    """Delete the oldest records of a topic, for good. Safe to repeat.

    \b
    Examples:
      penstock topic trim orders --before-time 2026-01-31T00:00:00Z --dry-run
      penstock topic trim orders --partition 0 --before-offset 1200 --yes
    """
    wanted = one_topic(name, topic)
    point = _point(before_offset, before_time, everything=everything)

    async def once(admin: Admin) -> int:
        before = await admin.list_offsets(wanted, "earliest", partitions=partition)
        latest = await admin.list_offsets(wanted, "latest", partitions=partition)
        if isinstance(point, Timestamp):
            goals = [one.offset for one in await admin.list_offsets(wanted, point, partitions=partition)]
        else:
            goals = [one.offset if point == "everything" else int(point) for one in latest]
        if settings.dry_run:
            return _show(settings, before, [_could(goal, one) for goal, one in zip(goals, latest, strict=True)])
        going = sum(max(0, goal - one.offset) for goal, one in zip(goals, before, strict=True))
        confirm(settings, f"Delete {going} offsets from {len(goals)} partition(s) of {wanted}, for good?")
        points = {one.partition: goal for one, goal in zip(before, goals, strict=True)}
        return _show(settings, before, await admin.trim_topic(wanted, points))

    return ask(settings, once)


def register(app: typer.Typer) -> None:
    """Add the command to `penstock topic`."""
    command(app, "trim", "bootstrap", "timeout", "dry_run", "yes")(trim)


def _point(before_offset: int | None, before_time: str | None, *, everything: bool) -> TrimPoint:
    given = (before_offset is not None) + (before_time is not None) + everything
    if given != 1:
        raise typer.BadParameter("say how far: one of --before-offset, --before-time, --everything")
    if before_time is not None:
        return Timestamp(parse_time(before_time, "--before-time"))
    return "everything" if before_offset is None else before_offset


def _could(goal: int, latest: PartitionOffset) -> TrimmedPartition:
    """What trimming would say."""
    if goal <= latest.offset:
        return TrimmedPartition(latest.topic, latest.partition, goal)
    text = f"partition {latest.partition} of {latest.topic!r}: offset {goal} is above the end {latest.offset}"
    return TrimmedPartition(latest.topic, latest.partition, None, PenstockError(Reason.OFFSET_ABOVE_END, text))


def _show(settings: Settings, before: Sequence[PartitionOffset], after: Sequence[TrimmedPartition]) -> int:
    documents: list[dict[str, Any]] = []
    rows: list[Sequence[Cell]] = []
    gone = 0
    for former, one in zip(before, after, strict=True):
        start = None if one.log_start_offset is None else max(former.offset, one.log_start_offset)
        gone += 0 if start is None else start - former.offset
        document: dict[str, Any] = {"partition": one.partition, "former_start_offset": former.offset}
        document["log_start_offset"] = start
        if one.error is not None:
            document["error"] = error_document(one.error)
        documents.append(document)
        rows.append((one.topic, one.partition, former.offset, start, one.error.reason.name if one.error else None))
    errors = [one.error for one in after if one.error is not None]
    verb = "could be trimmed" if settings.dry_run else "trimmed"
    head = f"topic {before[0].topic} {verb}: {gone} offsets go" if before else f"nothing to be {verb}"
    table = Table(("topic", "partition", "former_start", "start", "error"), rows)
    document = {"partitions": documents, "offsets": gone, "dry_run": settings.dry_run}
    show(settings, document, *([table] if settings.format is Format.TSV else [head, table]))
    if not settings.is_json:
        for error in errors:
            say(f"penstock: {error}")
    return EXIT_FAILED if errors else EXIT_OK
