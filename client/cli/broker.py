"""`penstock broker`: the nodes."""

import typer

from penstock.client import Admin
from penstock.client.cli.cluster import broker_document, brokers_table
from penstock.client.cli.output import EXIT_OK, ask, show
from penstock.client.cli.settings import Settings, command

app = typer.Typer(help="The cluster's nodes.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _noun() -> None:
    """Keep `list` a command of its own though it is the only one."""


@command(app, "list", "bootstrap", "timeout", "watch")
def list_(settings: Settings) -> int:
    """List the registered nodes.

    \b
    Example: penstock broker list
    """

    async def once(admin: Admin) -> int:
        cluster = await admin.describe_cluster()
        document = {
            "brokers": [broker_document(broker) for broker in cluster.brokers],
            "controller": cluster.controller,
        }
        show(settings, document, brokers_table(cluster.brokers, cluster.controller))
        return EXIT_OK

    return ask(settings, once)
