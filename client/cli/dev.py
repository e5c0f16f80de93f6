"""`penstock dev`: a cluster on this machine, kept between runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.client.cli.output import EXIT_OK, EXIT_UNHEALTHY, Table, say, show
from penstock.client.cli.settings import Settings, command, home
from penstock.client.cli.topic import confirm
from penstock.client.devcluster import START_TIMEOUT_S, DevCluster, DevClusterError, NodeState, remove
from penstock.client.devplan import make_plan

DEFAULT_NODES = 3
DEFAULT_BASE_PORT = 9092
MAX_NODES = 15

app = typer.Typer(
    help="A cluster on this machine, for trying things out. Its data is kept between runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Where it lives. Default: $PENSTOCK_HOME/dev, or penstock/dev in the state folder."
    ),
]


def _folder(data_dir: Path | None) -> Path:
    return (data_dir or home() / "dev").absolute()


def _existing(data_dir: Path | None) -> DevCluster:
    cluster = DevCluster.find(_folder(data_dir))
    if cluster is None:
        raise DevClusterError(f"there is no cluster in {_folder(data_dir)}; `penstock dev up` makes one")
    return cluster


@command(app, "up", "timeout")
def up(
    settings: Settings,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=MAX_NODES, help="Number of nodes of a new cluster. Default: 3.")
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535 - 2 * MAX_NODES, help="First port; each node takes two. Default: 9092."),
    ] = None,
    data_dir: DataDir = None,
) -> int:
    """Start the cluster, making it the first time, and wait until every node serves.

    \b
    Example: penstock dev up && penstock topic create orders --partitions 3
    """
    folder = _folder(data_dir)
    cluster = DevCluster.find(folder)
    if cluster is None:
        first = base_port or DEFAULT_BASE_PORT
        plan = make_plan(range(first, first + 2 * (nodes or DEFAULT_NODES)))
        cluster = DevCluster.create(folder, plan)
    with cluster.locked():
        _fit(cluster, nodes, base_port)
        started = cluster.start()
        if started:
            say(f"starting node{'s' * (len(started) != 1)} {', '.join(map(str, started))} in {folder}")
        try:
            cluster.wait_serving(timeout_s=settings.timeout or START_TIMEOUT_S)
        except BaseException:  # Ctrl-C too: what this command started does not stay half up
            cluster.stop(started)
            raise
    _show_state(settings, cluster, f"the cluster serves at {cluster.bootstrap}")
    return EXIT_OK


def _fit(cluster: DevCluster, nodes: int | None, base_port: int | None) -> None:
    """Check that what was asked for is what there is; move to other ports where nothing runs."""
    present = len(cluster.plan.nodes)
    if nodes is not None and nodes != present:
        raise DevClusterError(f"the cluster in {cluster.home} has {present} nodes; `penstock dev reset` removes it")
    if base_port is None or base_port == cluster.plan.nodes[0].client_port:
        return
    if any(cluster.is_running(node_id) for node_id in cluster.node_ids):
        raise DevClusterError("the cluster runs; `penstock dev down` first to move it to other ports")
    cluster.save_plan(cluster.plan.on_ports_from(base_port))


@command(app, "status")
def status(settings: Settings, data_dir: DataDir = None) -> int:
    """Show the nodes. Exit code 10 unless all of them serve.

    \b
    Example: penstock dev status
    """
    return _show_state(settings, _existing(data_dir))


@command(app, "down")
def down(settings: Settings, data_dir: DataDir = None) -> int:
    """Stop the nodes. The data stays.

    \b
    Example: penstock dev down
    """
    cluster = _existing(data_dir)
    with cluster.locked():
        killed = cluster.stop()
    document = {"stopped": list(cluster.node_ids), "killed": killed}
    note = f"; nodes {killed} did not end by themselves and were killed" if killed else ""
    show(settings, document, f"the cluster is down, its data is kept in {cluster.home}{note}")
    return EXIT_OK


@command(app, "reset", "yes")
def reset(settings: Settings, data_dir: DataDir = None) -> int:
    """Stop the nodes and delete all their data.

    \b
    Example: penstock dev reset --yes
    """
    folder = _folder(data_dir)
    try:
        cluster = DevCluster.find(folder)
    except DevClusterError:
        confirm(settings, f"The plan of the cluster in {folder} is not readable. Delete the cluster with all its data?")
        remove(folder)
        show(settings, {"deleted": str(folder)}, f"{folder} is deleted")
        return EXIT_OK
    if cluster is None:
        show(settings, {"deleted": None}, f"there is no cluster in {folder}")
        return EXIT_OK
    confirm(settings, f"Delete the cluster in {folder} with all its data?")
    with cluster.locked():
        cluster.delete()
    show(settings, {"deleted": str(folder)}, f"the cluster in {folder} is deleted")
    return EXIT_OK


def _show_state(settings: Settings, cluster: DevCluster, head: str | None = None) -> int:
    nodes: list[dict[str, Any]] = []
    for node in cluster.plan.nodes:
        process, state = cluster.process(node.node_id), cluster.state(node.node_id)
        pid = process.pid if process is not None and state is not NodeState.STOPPED else None
        log = str(cluster.log_path(node.node_id))
        nodes.append({"node_id": node.node_id, "state": state.value, "pid": pid, "address": node.client, "log": log})
    table = Table(tuple(nodes[0]), [tuple(node.values()) for node in nodes])
    serving = all(node["state"] == NodeState.SERVING for node in nodes)
    document = {"bootstrap": cluster.bootstrap, "serving": serving, "home": str(cluster.home), "nodes": nodes}
    show(settings, document, *([head] if head else []), table)
    return EXIT_OK if serving else EXIT_UNHEALTHY
