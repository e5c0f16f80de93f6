"""`penstock group history`: who committed what and when, in which generation, and each rebalance with its cause."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from penstock.client import Admin, GroupEvent, GroupRebalanced, OffsetsCommitted
from penstock.client.cli.group import GroupOption, Name, one_group
from penstock.client.cli.group_text import named
from penstock.client.cli.output import EXIT_OK, Cell, Table, ask, show
from penstock.client.cli.settings import Format, Settings, command
from penstock.client.cli.times import time_text

DEFAULT_LIMIT = 100
SHARES_SHOWN = 5
"""Of a rebalance, to people."""
COLUMNS = ("time", "generation", "event", "member", "topic", "partition", "offset", "detail")


def history(
    settings: Settings,
    name: Name = None,
    group: GroupOption = None,
    limit: Annotated[int, typer.Option(min=1, help="So many of the latest events.")] = DEFAULT_LIMIT,
) -> int:
    """Show who committed what, when and in which generation, and each rebalance with its cause; the latest last.

    As far back as it is kept: commits that were followed by others for some minutes, rebalances for 100 generations.

    \b
    Example: penstock group history billing --limit 20
    """
    wanted = one_group(name, group)

    async def once(admin: Admin) -> int:
        events = await admin.group_history(wanted, limit)
        rows = [_row(event, exact=settings.format is Format.TSV) for event in events]
        document = {"group_id": wanted, "events": [event_document(event) for event in events]}
        has_table = bool(rows) or settings.format is Format.TSV
        show(settings, document, Table(COLUMNS, rows) if has_table else f"nothing is kept of the history of {wanted}")
        return EXIT_OK

    return ask(settings, once)


def register(app: typer.Typer) -> None:
    """Add the command to `penstock group`."""
    command(app, "history", "bootstrap", "timeout", "watch")(history)


def event_document(event: GroupEvent) -> dict[str, Any]:
    """Give the form of an event in JSON output."""
    if isinstance(event, GroupRebalanced):
        members = [asdict(share) for share in event.members]
        return {
            "event": "rebalance",
            "time_ms": event.time_ms,
            "generation": event.generation,
            "cause": event.cause,
            "members": members,
        }
    document = asdict(event)
    removed = document.pop("removed")
    return {"event": "removal" if removed else "commit", **document, "topic_id": event.topic_id.hex()}


def _row(event: GroupEvent, *, exact: bool) -> Sequence[Cell]:
    time: Cell = event.time_ms if exact else time_text(event.time_ms)
    if isinstance(event, GroupRebalanced):
        return (time, event.generation, "rebalance", None, None, None, None, _shares(event, exact=exact))
    return (time, *_commit(event, exact=exact))


def _commit(event: OffsetsCommitted, *, exact: bool) -> Sequence[Cell]:
    where = (event.topic or event.topic_id.hex(), event.partition)
    if event.removed:
        return (None, "removal", None, *where, None, None)
    who: Cell = event.member_id
    if event.member_id is not None and not exact:
        who = named(event.member_id, event.client_id)
    return (event.generation or None, "commit", who, *where, event.offset, event.metadata or None)


def _shares(event: GroupRebalanced, *, exact: bool) -> str:
    shown = event.members if exact else event.members[:SHARES_SHOWN]
    shares = ", ".join(f"{named(one.member_id, one.client_id)} {one.partitions}" for one in shown)
    more = len(event.members) - len(shown)
    return f"{event.cause} [{shares or 'no members'}{f' and {more} more' if more else ''}]"
