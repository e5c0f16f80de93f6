"""`penstock broker`: the nodes."""

from typing import Annotated, Any

import typer

from penstock.client import Admin, BrokerDescription, BrokerUsage
from penstock.client.cli.cluster import broker_document, brokers_table
from penstock.client.cli.output import EXIT_OK, Cell, Table, ask, show
from penstock.client.cli.settings import Settings, command
from penstock.client.cli.store_compaction import node_epoch_of, show_after, show_before, until_back
from penstock.client.cli.topic import confirm

app = typer.Typer(help="The cluster's nodes.", no_args_is_help=True, rich_markup_mode=None)


@command(app, "list", "bootstrap", "timeout", "watch")
def list_(settings: Settings) -> int:
    """List the registered nodes, each with how full its store is; a dash where it does not answer.

    \b
    Example: penstock broker list
    """

    async def once(admin: Admin) -> int:
        cluster = await admin.describe_cluster()
        usage = {used.node_id: used for used in await admin.broker_usage()}
        used = [usage.get(broker.node_id) for broker in cluster.brokers]
        document = {
            "brokers": [
                broker_document(broker) | _store_document(broker, of)
                for broker, of in zip(cluster.brokers, used, strict=True)
            ],
            "controller": cluster.controller,
        }
        table = brokers_table(cluster.brokers, cluster.controller)
        rows = [(*row, *_store_cells(of)) for row, of in zip(table.rows, used, strict=True)]
        show(settings, document, Table((*table.columns, *STORE_COLUMNS), rows))
        return EXIT_OK

    return ask(settings, once)


@command(app, "compact-store", "bootstrap", "timeout", "dry_run", "yes")
def compact_store(
    settings: Settings,
    node: Annotated[int, typer.Argument(metavar="NODE", min=1, help="Id of the node.", show_default=False)],
) -> int:
    """Give the free room in a node's store back to the file system.

    The node leaves as at an orderly stop, copies its store, comes back and catches up; this waits for it, --timeout
    seconds at most if given. Refused where a partition or the controllers could not spare the node, or where there is
    no room for the copy.

    \b
    Example: penstock broker compact-store 2 --dry-run
    """

    async def once(admin: Admin) -> int:
        found = await admin.compact_store(node, validate_only=True)
        if settings.dry_run:
            return show_before(settings, found)
        sizes = f"{found.disk_bytes} bytes on disk, {found.used_bytes} used"
        confirm(settings, f"Take node {node} out of the cluster until its store ({sizes}) is copied?")
        former_epoch = await node_epoch_of(admin, node)
        before = await admin.compact_store(node)
        return show_after(settings, before, await until_back(admin, before, former_epoch, settings.timeout))

    return ask(settings, once)


STORE_COLUMNS = ("store", "used_bytes", "capacity_bytes", "free_bytes")
STORE_FIELDS = ("store_used_bytes", "store_capacity_bytes", "store_disk_bytes", "disk_free_bytes", "retention_paused")


def _store_document(broker: BrokerDescription, used: BrokerUsage | None) -> dict[str, Any]:
    """Give what the node itself says of its store, null where it does not answer; its noted state stays then."""
    state = None if used is None else used.store_state
    figures = {name: getattr(used, name, None) for name in STORE_FIELDS}
    return {"store_state": state or broker.store_state, **figures}


def _store_cells(used: BrokerUsage | None) -> tuple[Cell, ...]:
    if used is None:
        return (None,) * len(STORE_COLUMNS)
    return (used.store_state, used.store_used_bytes, used.store_capacity_bytes, used.disk_free_bytes)
