"""`penstock topic`: create, list, describe, alter, delete topics."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from penstock.client import (
    Admin,
    TopicConfig,
    TopicDescription,
    TopicExistsError,
    UnknownTopicError,
)
from penstock.client.cli.items import each, finish, with_errors
from penstock.client.cli.logs import Sizes
from penstock.client.cli.output import EXIT_OK, Table, ask, show
from penstock.client.cli.settings import Format, Settings, command

SETTINGS_WIDTH = 120
"""Of a line of a topic's settings."""

app = typer.Typer(help="Create, look at, change and delete topics.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str | None, typer.Argument(metavar="TOPIC", help="The topic's name.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(metavar="TOPIC", help="Names of topics.", show_default=False)]
TopicOption = Annotated[str | None, typer.Option("--topic", help="The same, as Kafka's tools take it.")]
TopicsOption = Annotated[list[str] | None, typer.Option("--topic", help="The same, as Kafka's tools take it.")]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="A setting, for example min_insync_replicas=2. Repeatable."),
]


def one_topic(positional: str | None, option: str | None) -> str:
    """Give the one topic that was named, by position or by --topic."""
    names = [name for name in (positional, option) if name is not None]
    if len(names) != 1:
        raise typer.BadParameter("name one topic, as in `orders` or `--topic orders`")
    return names[0]


def parse_config(pairs: Sequence[str] | None) -> dict[str, str]:
    """Read KEY=VALUE pairs; the value may hold further equals signs."""
    config = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--config")
        config[key] = value
    return config


def parse_assignments(text: str | None) -> list[list[int]] | None:
    """Read Kafka's form: replicas joined by ":", partitions by ",", as in 1:2:3,2:3:1."""
    if text is None:
        return None
    try:
        return [[int(replica) for replica in partition.split(":")] for partition in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not like 1:2:3,2:3:1", param_hint="--replica-assignment") from error


@command(app, "create", "bootstrap", "timeout", "dry_run")
def create(  # noqa: PLR0913  the options of the command
    settings: Settings,
    *,
    name: Name = None,
    topic: TopicOption = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Number of partitions. Default: 1.")] = None,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Copies of each partition. Default: 3, or the number of nodes if lower.")
    ] = None,
    config: Config = None,
    replica_assignment: Annotated[
        str | None, typer.Option(metavar="1:2:3,2:3:1", help="Nodes of each partition, the preferred leader first.")
    ] = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="An existing topic is no error.")] = False,
) -> int:
    """Create a topic.

    \b
    Example: penstock topic create orders --partitions 3 --config min_insync_replicas=2
    """
    wanted = one_topic(name, topic)
    values, assignments = parse_config(config), parse_assignments(replica_assignment)

    async def once(admin: Admin) -> int:
        try:
            created = await admin.create_topic(
                wanted, partitions, replication_factor, values, assignments, validate_only=settings.dry_run
            )
        except TopicExistsError:
            if not if_not_exists:
                raise
            created = await admin.describe_topic(wanted)
            _show_changed(settings, created, "exists already", dry="exists already")
            return EXIT_OK
        _show_changed(settings, created, "created", dry="could be created")
        return EXIT_OK

    return ask(settings, once)


@command(app, "list", "bootstrap", "timeout", "watch")
def list_(
    settings: Settings,
    include_internal: Annotated[bool, typer.Option("--include-internal", help="Internal topics too.")] = False,
) -> int:
    """List the topics.

    \b
    Example: penstock topic list --format tsv
    """

    async def once(admin: Admin) -> int:
        topics = await admin.list_topics(include_internal=include_internal)
        show(settings, {"topics": [topic_document(topic) for topic in topics]}, _topics_table(topics))
        return EXIT_OK

    return ask(settings, once)


@command(app, "describe", "bootstrap", "timeout", "watch")
def describe(
    settings: Settings,
    names: Names = None,
    topic: TopicsOption = None,
    offsets: Annotated[bool, typer.Option("--offsets", help="Ask the leaders for first and next offset.")] = False,
    replicas: Annotated[bool, typer.Option("--replicas", help="Show the log of each replica, too.")] = False,
) -> int:
    """Show topics with their settings, partitions and sizes; all topics if none is named.

    Records and bytes are those of the leader's log; what a node that does not answer would say is a dash.

    \b
    Example: penstock topic describe orders --offsets
    """
    wanted = [*(names or ()), *(topic or ())]

    async def once(admin: Admin) -> int:
        found: list[TopicDescription] = []

        async def add(name: str) -> None:
            found.append(await admin.describe_topic(name))

        errors = await each(wanted, add)
        if not wanted:
            found.extend(await admin.list_topics())
        bounds = {one.name: await _offsets(admin, one) for one in found} if offsets else {}
        sizes = await Sizes.of(admin, found, all_replicas=replicas)
        documents = [_described(one, bounds.get(one.name), sizes, replicas=replicas) for one in found]
        parts: list[Table | str] = []
        for one in found:
            parts += _topic_parts(one, bounds.get(one.name), sizes)
            parts += [sizes.replica_table(one)] if replicas else []
        show(settings, with_errors({"topics": documents}, errors), *parts)
        return finish(settings, errors)

    return ask(settings, once)


@command(app, "alter", "bootstrap", "timeout", "dry_run")
def alter(
    settings: Settings,
    name: Name = None,
    topic: TopicOption = None,
    config: Config = None,
    reset: Annotated[
        list[str] | None, typer.Option("--reset", "--delete-config", metavar="KEY", help="Back to the default.")
    ] = None,
) -> int:
    """Change settings of a topic.

    \b
    Example: penstock topic alter orders --config retention_ms=86400000 --reset retention_bytes
    """
    wanted, values = one_topic(name, topic), parse_config(config)
    if not values and not reset:
        raise typer.BadParameter("nothing to change: give --config or --reset")

    async def once(admin: Admin) -> int:
        changed = await admin.alter_topic(wanted, values, reset=reset or (), validate_only=settings.dry_run)
        _show_changed(settings, changed, "changed", dry="could be changed")
        return EXIT_OK

    return ask(settings, once)


@command(app, "add-partitions", "bootstrap", "timeout", "dry_run")
def add_partitions(
    settings: Settings,
    partitions: Annotated[int, typer.Option(min=1, help="The new number of partitions, more than now.")],
    name: Name = None,
    topic: TopicOption = None,
) -> int:
    """Give a topic more partitions. Keys may then belong to other partitions than before.

    \b
    Example: penstock topic add-partitions orders --partitions 6
    """
    wanted = one_topic(name, topic)

    async def once(admin: Admin) -> int:
        changed = await admin.add_partitions(wanted, partitions, validate_only=settings.dry_run)
        _show_changed(settings, changed, "extended", dry="could be extended")
        return EXIT_OK

    return ask(settings, once)


@command(app, "delete", "bootstrap", "timeout", "dry_run", "yes")
def delete(
    settings: Settings,
    names: Names = None,
    topic: TopicsOption = None,
    if_exists: Annotated[bool, typer.Option("--if-exists", help="A missing topic is no error.")] = False,
) -> int:
    """Delete topics with all their records.

    \b
    Example: penstock topic delete orders --yes
    """
    wanted = [*(names or ()), *(topic or ())]
    if not wanted:
        raise typer.BadParameter("name the topics to delete")
    if not settings.dry_run:
        confirm(settings, f"Delete {', '.join(wanted)} with all records?")

    async def once(admin: Admin) -> int:
        deleted: list[str] = []

        async def remove(name: str) -> None:
            try:
                await admin.delete_topic(name, validate_only=settings.dry_run)
            except UnknownTopicError:
                if not if_exists:
                    raise
            else:
                deleted.append(name)

        errors = await each(wanted, remove)
        verb = "could be deleted" if settings.dry_run else "deleted"
        document = {"deleted": [] if settings.dry_run else deleted, "dry_run": settings.dry_run}
        show(settings, with_errors(document, errors), *(f"topic {name} {verb}" for name in deleted))
        return finish(settings, errors)

    return ask(settings, once)


def confirm(settings: Settings, question: str) -> None:
    """Ask on a terminal; without one, want --yes."""
    if settings.yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Add --yes; there is no terminal to ask on.")
    typer.confirm(question, abort=True, err=True)


def topic_document(topic: TopicDescription, bounds: Mapping[int, tuple[int, int]] | None = None) -> dict[str, Any]:
    """Give the form of a topic in JSON output; `bounds`: first and next offset by partition."""
    partitions = []
    for one in topic.partitions:
        fields: dict[str, Any] = {"partition": one.partition, "leader": one.leader, "leader_epoch": one.leader_epoch}
        fields |= {"replicas": list(one.replicas), "isr": list(one.isr), "elr": list(one.elr)}
        if bounds is not None:
            first, end = bounds.get(one.partition, (None, None))
            fields |= {"log_start_offset": first, "end_offset": end}
        partitions.append(fields)
    return {
        "name": topic.name,
        "topic_id": topic.topic_id.hex(),
        "replication_factor": topic.replication_factor,
        "config": config_document(topic.config),
        "partitions": partitions,
    }


def config_document(config: TopicConfig) -> dict[str, Any]:
    """Give a topic's settings by name."""
    return {name: getattr(config, name) for name in TopicConfig.__dataclass_fields__}


def _described(
    topic: TopicDescription, bounds: Mapping[int, tuple[int, int]] | None, sizes: Sizes, *, replicas: bool
) -> dict[str, Any]:
    document = topic_document(topic, bounds)
    for shown, partition in zip(document["partitions"], topic.partitions, strict=True):
        shown.update(sizes.fields(topic, partition, replicas=replicas))
    records, size = sizes.totals(topic)
    return {**document, "size_bytes": size, "record_count": records}


async def _offsets(admin: Admin, topic: TopicDescription) -> dict[int, tuple[int, int]]:
    first = {one.partition: one.offset for one in await admin.list_offsets(topic.name, "earliest")}
    end = {one.partition: one.offset for one in await admin.list_offsets(topic.name, "latest")}
    return {partition: (first[partition], end[partition]) for partition in first.keys() & end.keys()}


def _topics_table(topics: Sequence[TopicDescription]) -> Table:
    rows = [
        (
            topic.name,
            len(topic.partitions),
            topic.replication_factor,
            topic.config.min_insync_replicas,
            sum(one.leader is None for one in topic.partitions),
            sum(len(one.isr) < len(one.replicas) for one in topic.partitions),
        )
        for topic in topics
    ]
    return Table(("topic", "partitions", "replicas", "min_insync", "offline", "under_replicated"), rows)


def _topic_parts(
    topic: TopicDescription, bounds: Mapping[int, tuple[int, int]] | None, sizes: Sizes
) -> list[Table | str]:
    settings = "  ".join(
        f"{name}={'unlimited' if value is None else str(value).lower()}"
        for name, value in config_document(topic.config).items()
    )
    columns: tuple[str, ...] = ("topic", "partition", "leader", "epoch", "replicas", "isr", "elr", "records", "bytes")
    rows: list[list[str | int | None]] = []
    for one in topic.partitions:
        nodes = [",".join(map(str, ids)) or None for ids in (one.replicas, one.isr, one.elr)]
        log = sizes.of_leader(topic, one)
        figures = (None, None) if log is None else (log.record_count, log.size_bytes)
        rows.append([topic.name, one.partition, one.leader, one.leader_epoch, *nodes, *figures])
        if bounds is not None:
            rows[-1].extend(bounds.get(one.partition, (None, None)))
    if bounds is not None:
        columns += ("start", "end")
    lines = textwrap.wrap(settings, SETTINGS_WIDTH, initial_indent="  ", subsequent_indent="  ")
    records, size = ("-" if total is None else total for total in sizes.totals(topic))
    return [f"{topic.name}  {topic.topic_id.hex()}  records {records}  bytes {size}", *lines, Table(columns, rows)]


def _show_changed(settings: Settings, topic: TopicDescription, done: str, *, dry: str) -> None:
    verb = dry if settings.dry_run else done
    count = len(topic.partitions)
    line = f"topic {topic.name} {verb}: {count} partition{'s' * (count != 1)}, {topic.replication_factor} replicas"
    document = {"topic": topic_document(topic), "dry_run": settings.dry_run}
    show(settings, document, _topics_table([topic]) if settings.format is Format.TSV else line)
