"""The program `penstockd`: format a data directory, start a node, compact the store of a stopped one.

Exit codes: 0 ok, 1 failure, 2 usage or configuration.
"""

import ctypes
import faulthandler
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock import __version__
from penstock.node import config as configuration
from penstock.node.logs import configure_logging
from penstock.raft.errors import RaftError
from penstock.raft.journal import RaftJournal
from penstock.storage import DamagedStoreError, StorageError, Store

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The Penstock server.", pretty_exceptions_enable=False
)
_log = logging.getLogger(__name__)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstockd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version  # its callback has done the work


@app.command("format")
def format_(
    data_dir: Annotated[Path, typer.Option(help="The node's data directory; made if it does not exist.")],
    node_id: Annotated[int, typer.Option(min=1, help="Id of the node, as in its configuration.")],
    cluster_id: Annotated[str, typer.Option(help="Id of the cluster; the same on every node.")],
    new_cluster: Annotated[bool, typer.Option("--new-cluster", help="This node is a founding member.")] = False,
    join: Annotated[bool, typer.Option("--join", help="The cluster exists, or this node's data was lost.")] = False,
) -> None:
    """Prepare an empty data directory. Never done by `start`: an empty disk must not pass for a node's data.

    Use --new-cluster once, on each node that founds a cluster. Use --join for a node that is added, or that comes back
    with an empty disk: it gets all data from its peers and does not vote until it is admitted.
    """
    if new_cluster == join:
        raise typer.BadParameter("say one of --new-cluster and --join")
    try:
        identity = Store.format(data_dir / "store", cluster_id=cluster_id, node_id=node_id)
        RaftJournal.format(data_dir / "raft", cluster_id=cluster_id, node_id=node_id, founding=new_cluster)
    except (StorageError, RaftError, OSError) as error:
        _fail(str(error))
    typer.echo(f"formatted {data_dir} for node {node_id} of cluster {cluster_id}, store id {identity.store_id.hex()}")


@app.command()
def start(
    config: Annotated[Path, typer.Option("--config", "-c", help="The node's configuration file (TOML).")],
) -> None:
    """Start the node and serve until SIGTERM or SIGINT."""
    try:
        node_config = configuration.load(config)
    except configuration.ConfigError as error:
        _fail(str(error), code=2)
    configure_logging(node_config.log_level, node_config.node_id)
    faulthandler.enable()  # a page of the store that is damaged may end the process by a signal: never without a word
    _tune_process()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Imported late so that `format` and --help do not pay for it.
    import uvloop  # noqa: PLC0415

    from penstock.node.broker import StartError  # noqa: PLC0415

    try:
        uvloop.run(_run(node_config))
    except (StartError, StorageError, RaftError) as error:
        _log.critical("cannot start: %s", error)
        _fail(str(error))


async def _run(config: configuration.NodeConfig) -> None:
    """Run the node, and again each time that its store was to be compacted."""
    from penstock.node.broker import Broker  # noqa: PLC0415
    from penstock.node.platform import Platform  # noqa: PLC0415
    from penstock.node.store_compaction import compact_now  # noqa: PLC0415

    platform = Platform()
    while await Broker(config, platform).run():
        try:
            await compact_now(config, platform)
        except DamagedStoreError as error:
            _log.critical("the node must end: %s", error)
            platform.end_process()


@app.command("compact-store")
def compact_store(
    config: Annotated[Path, typer.Option("--config", "-c", help="The node's configuration file (TOML).")],
) -> None:
    """Give the free room in the store of a stopped node back to the file system.

    Makes a compact copy, which needs as much free room as there is data, and puts it in the store's place. A running
    node does the same by `penstock broker compact-store`.
    """
    from penstock.node.store_compaction import compact_closed  # noqa: PLC0415

    try:
        node_config = configuration.load(config)
        before, after = compact_closed(node_config)
    except configuration.ConfigError as error:
        _fail(str(error), code=2)
    except StorageError as error:
        _fail(str(error))
    typer.echo(f"compacted {node_config.store_dir} from {before.disk_bytes} to {after.disk_bytes} bytes on disk")


def _fail(message: str, code: int = 1) -> None:
    typer.echo(f"penstockd: {message}", err=True)
    raise typer.Exit(code)


def _tune_process() -> None:
    """Keep large buffers off mmap/munmap round trips (SPEED: +29 % at 64 KiB batches), and collect garbage rarely."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, 32 * 1024 * 1024)
            libc.mallopt(m_trim_threshold, 256 * 1024 * 1024)
    gc.set_threshold(50_000, 20, 20)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
