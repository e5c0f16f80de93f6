"""`penstock cluster`: is it well, and what is it made of."""

from typing import Any

import typer

from penstock.client import Admin, BrokerDescription, ClusterDescription, HealthReport
from penstock.client.cli.coordinators import Coordinators
from penstock.client.cli.output import EXIT_OK, EXIT_UNHEALTHY, Table, ask, show
from penstock.client.cli.settings import Settings, command

app = typer.Typer(help="The cluster as a whole.", no_args_is_help=True, rich_markup_mode=None)


@command(app, "status", "bootstrap", "timeout", "watch")
def status(settings: Settings) -> int:
    """Show the cluster in a few lines.

    \b
    Example: penstock cluster status --watch
    """

    async def once(admin: Admin) -> int:
        cluster, health = await admin.describe_cluster(), await admin.health()
        coordinators = await Coordinators.of(admin, cluster)
        partitions = [partition for topic in cluster.topics for partition in topic.partitions]
        document: dict[str, str | int | None] = {
            "cluster_id": cluster.cluster_id,
            "healthy": health.healthy,
            "controller": cluster.controller,
            "brokers": len(cluster.brokers),
            "brokers_fenced": sum(broker.fenced for broker in cluster.brokers),
            "topics": len(cluster.topics),
            "partitions": len(partitions),
            "partitions_offline": sum(partition.leader is None for partition in partitions),
            "partitions_under_replicated": sum(len(one.isr) < len(one.replicas) for one in partitions),
            "metadata_version": cluster.metadata_version,
            "feature_level": cluster.feature_level,
            **({} if coordinators is None else coordinators.fields()),
        }
        rows = [(name, str(value).lower() if isinstance(value, bool) else value) for name, value in document.items()]
        show(settings, document, Table(("what", "value"), rows))
        return EXIT_OK

    return ask(settings, once)


@command(app, "health", "bootstrap", "timeout", "watch")
def health(settings: Settings) -> int:
    """Is every partition served and fully replicated? Exit code 10 if not.

    \b
    Example: penstock cluster health && echo all well
    """

    async def once(admin: Admin) -> int:
        report = await admin.health()
        rows = [(problem.reason, problem.message) for problem in report.problems]
        verdict = "healthy" if report.healthy else f"unhealthy: {len(rows)} problem{'s' * (len(rows) != 1)}"
        show(settings, _health_document(report), verdict, *([Table(("reason", "message"), rows)] if rows else []))
        return EXIT_OK if report.healthy else EXIT_UNHEALTHY

    return ask(settings, once)


@command(app, "describe", "bootstrap", "timeout", "watch")
def describe(settings: Settings) -> int:
    """Show controller and brokers, and how many groups each coordinates.

    \b
    Example: penstock cluster describe --format json
    """

    async def once(admin: Admin) -> int:
        cluster = await admin.describe_cluster()
        coordinators = await Coordinators.of(admin, cluster)
        head = f"cluster {cluster.cluster_id}  feature level {cluster.feature_level}"
        document, table = _cluster_document(cluster), brokers_table(cluster.brokers, cluster.controller)
        if coordinators is not None:
            document["coordinators"] = coordinators.documents(cluster)
            cells = [coordinators.of_node(broker.node_id) for broker in cluster.brokers]
            rows = [(*row, *more) for row, more in zip(table.rows, cells, strict=True)]
            table = Table((*table.columns, "offsets_partitions", "groups"), rows)
        show(settings, document, head, table)
        return EXIT_OK

    return ask(settings, once)


def broker_document(broker: BrokerDescription) -> dict[str, Any]:
    """Give the form of a broker in JSON output."""
    return {name: getattr(broker, name) for name in BrokerDescription.__dataclass_fields__}


def brokers_table(brokers: tuple[BrokerDescription, ...], controller: int | None) -> Table:
    """Give brokers a line each."""
    rows = [
        (
            broker.node_id,
            f"{broker.host}:{broker.port}",
            broker.rack or None,
            "fenced" if broker.fenced else "serving",
            "controller" if broker.node_id == controller else "voter" if broker.voter else "observer",
            broker.durability,
            broker.version,
        )
        for broker in brokers
    ]
    return Table(("node", "address", "rack", "state", "role", "durability", "version"), rows)


def _health_document(report: HealthReport) -> dict[str, Any]:
    problems = [
        {"reason": one.reason, "message": one.message, "metadata": dict(one.metadata)} for one in report.problems
    ]
    return {"healthy": report.healthy, "problems": problems, "metadata_version": report.metadata_version}


def _cluster_document(cluster: ClusterDescription) -> dict[str, Any]:
    return {
        "cluster_id": cluster.cluster_id,
        "metadata_version": cluster.metadata_version,
        "controller": cluster.controller,
        "feature_level": cluster.feature_level,
        "brokers": [broker_document(broker) for broker in cluster.brokers],
        "topics": [{"name": topic.name, "partitions": len(topic.partitions)} for topic in cluster.topics],
    }
