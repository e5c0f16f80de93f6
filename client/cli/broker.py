"""`penstock broker`: the nodes."""

from typing import Any

import typer

from penstock.client import Admin, BrokerDescription, BrokerUsage
from penstock.client.cli.cluster import broker_document, brokers_table
from penstock.client.cli.output import EXIT_OK, Cell, Table, ask, show
from penstock.client.cli.settings import Settings, command

app = typer.Typer(help="The cluster's nodes.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _noun() -> None:
    """Keep `list` a command of its own though it is the only one."""


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
