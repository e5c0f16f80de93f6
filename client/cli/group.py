"""`penstock group`: consumer groups; how they stand, how far behind they are, who is in them."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, cast

import typer

from penstock.client import Admin, GroupDescription, PenstockError, UnknownGroupError
from penstock.client.cli.group_text import (
    PARTITION_COLUMNS,
    group_document,
    groups_table,
    head_lines,
    lag_document,
    lag_table,
    member_document,
    members_table,
    partitions_table,
    summary_document,
)
from penstock.client.cli.items import each, finish, with_errors
from penstock.client.cli.output import EXIT_OK, Table, ask, show
from penstock.client.cli.settings import Format, Settings, command
from penstock.client.cli.topic import confirm
from penstock.client.group_descriptions import GroupState

ASKED_AT_ONCE = 8
"""Groups that are described at a time."""

app = typer.Typer(
    help="Consumer groups: look at them, move and delete their offsets.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str | None, typer.Argument(metavar="GROUP", help="The group's id.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(metavar="GROUP", help="Ids of groups.", show_default=False)]
GroupOption = Annotated[str | None, typer.Option("--group", help="The same, as Kafka's tools take it.")]
GroupsOption = Annotated[list[str] | None, typer.Option("--group", help="The same, as Kafka's tools take it.")]
All = Annotated[bool, typer.Option("--all", "--all-groups", help="All groups.")]


class State(StrEnum):
    """States of a group."""

    EMPTY = "empty"
    """No members."""
    REBALANCING = "rebalancing"
    """Some member has yet to give up or to get partitions."""
    STABLE = "stable"


def one_group(positional: str | None, option: str | None) -> str:
    """Give the one group that was named, by position or by --group."""
    names = [name for name in (positional, option) if name is not None]
    if len(names) != 1:
        raise typer.BadParameter("name one group, as in `billing` or `--group billing`")
    return names[0]


def some_groups(positional: Sequence[str] | None, option: Sequence[str] | None, *, every: bool) -> list[str] | None:
    """Give the groups that were named; None for all."""
    names = list(dict.fromkeys([*(positional or ()), *(option or ())]))
    if every is bool(names):
        raise typer.BadParameter("name the groups, or give --all")
    return None if every else names


@command(app, "list", "bootstrap", "timeout", "watch")
def list_(
    settings: Settings,
    state: Annotated[list[State] | None, typer.Option(help="Only groups in this state. Repeatable.")] = None,
) -> int:
    """List the groups.

    \b
    Example: penstock group list --state rebalancing --watch
    """

    async def once(admin: Admin) -> int:
        groups = await admin.list_groups(cast("list[GroupState]", [one.value for one in state]) if state else None)
        show(settings, {"groups": [summary_document(group) for group in groups]}, groups_table(groups))
        return EXIT_OK

    return ask(settings, once)


@command(app, "describe", "bootstrap", "timeout", "watch")
def describe(settings: Settings, names: Names = None, group: GroupsOption = None, every: All = False) -> int:
    """Show groups with their members and partitions: who has each, what is committed, and how far behind that is.

    A lag is counted in offsets and in time: how long ago the next record to read was written.

    \b
    Example: penstock group describe billing --watch
    """
    wanted = some_groups(names, group, every=every)

    async def once(admin: Admin) -> int:
        groups, errors = await _described(admin, wanted)
        document = with_errors({"groups": [group_document(one) for one in groups]}, errors)
        show(settings, document, *_shown(settings, groups))
        return finish(settings, errors)

    return ask(settings, once)


@command(app, "lag", "bootstrap", "timeout", "watch")
def lag(settings: Settings, names: Names = None, group: GroupsOption = None, every: All = False) -> int:
    """Show how far groups are behind, a line for each of their topics; of groups without members, too.

    Exit code 1 where a partition's leader did not answer.

    \b
    Example: penstock group lag --all --format tsv
    """
    wanted = some_groups(names, group, every=every)

    async def once(admin: Admin) -> int:
        groups, errors = await _described(admin, wanted)
        unanswered = [(one, part, part.error) for one in groups for part in one.partitions if part.error is not None]
        errors |= {f"{one.group_id}: {part.topic}[{part.partition}]": error for one, part, error in unanswered}
        document = with_errors({"groups": [lag_document(one) for one in groups]}, errors)
        show(settings, document, lag_table(groups, exact=settings.format is Format.TSV))
        return finish(settings, errors)

    return ask(settings, once)


@command(app, "members", "bootstrap", "timeout", "watch")
def members(settings: Settings, name: Name = None, group: GroupOption = None) -> int:
    """Show the members of a group, and which partitions each has, is to get, and is to give up.

    \b
    Example: penstock group members billing
    """
    wanted = one_group(name, group)

    async def once(admin: Admin) -> int:
        found = await admin.describe_group(wanted, lag=False)
        document = {"group_id": wanted, "members": [member_document(one) for one in found.members]}
        exact = settings.format is Format.TSV
        if found.members or exact:
            show(settings, document, members_table(found.members, exact=exact))
        else:
            show(settings, document, f"group {wanted} has no members")
        return EXIT_OK

    return ask(settings, once)


@command(app, "delete", "bootstrap", "timeout", "dry_run", "yes")
def delete(
    settings: Settings,
    names: Names = None,
    group: GroupsOption = None,
    if_exists: Annotated[bool, typer.Option("--if-exists", help="A missing group is no error.")] = False,
) -> int:
    """Delete groups without members, with their committed offsets.

    \b
    Example: penstock group delete billing --yes
    """
    wanted = list(dict.fromkeys([*(names or ()), *(group or ())]))
    if not wanted:
        raise typer.BadParameter("name the groups to delete")
    if not settings.dry_run:
        confirm(settings, f"Delete {', '.join(wanted)} with all committed offsets?")

    async def once(admin: Admin) -> int:
        deleted: list[str] = []

        async def remove(name: str) -> None:
            try:
                await admin.delete_group(name, validate_only=settings.dry_run)
            except UnknownGroupError:
                if not if_exists:
                    raise
            else:
                deleted.append(name)

        errors = await each(wanted, remove)
        verb = "could be deleted" if settings.dry_run else "deleted"
        document = {"deleted": [] if settings.dry_run else deleted, "dry_run": settings.dry_run}
        show(settings, with_errors(document, errors), *(f"group {name} {verb}" for name in deleted))
        return finish(settings, errors)

    return ask(settings, once)


async def _described(
    admin: Admin, wanted: Sequence[str] | None
) -> tuple[list[GroupDescription], dict[str, PenstockError]]:
    """Describe groups, some at a time, in order; of those named, what is wrong with each. None: all that there are."""
    names = [group.group_id for group in await admin.list_groups()] if wanted is None else wanted
    found: dict[str, GroupDescription] = {}

    async def add(name: str) -> None:
        try:
            found[name] = await admin.describe_group(name)
        except UnknownGroupError:
            if wanted is not None:
                raise  # else: deleted meanwhile

    errors = await each(names, add, at_once=ASKED_AT_ONCE)
    return [found[name] for name in names if name in found], errors


def _shown(settings: Settings, groups: Sequence[GroupDescription]) -> list[Table | str]:
    """What `describe` shows: for programs one table of all partitions."""
    if settings.format is Format.TSV:
        tables = [(one.group_id, partitions_table(one, exact=True)) for one in groups]
        rows = [(group_id, *row) for group_id, table in tables for row in table.rows]
        return [Table(("group", *PARTITION_COLUMNS), rows)]
    parts: list[Table | str] = []
    for one in groups:
        parts += [*([""] if parts else []), *head_lines(one)]
        parts += [members_table(one.members, exact=False)] if one.members else []
        parts += [partitions_table(one, exact=False)] if one.partitions else []
    return parts
