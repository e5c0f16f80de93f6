"""What `penstock broker compact-store` waits for and shows: a node that leaves, copies its store and comes back."""

import asyncio
import sys
import time
from typing import Any

from penstock.client import Admin, ClusterDescription, RequestTimeoutError, StoreRoom, UnavailableError
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, Table, say, show
from penstock.client.cli.settings import Format, Settings
from penstock.protocol.reasons import Reason

POLL_S = 0.5
PATIENCE_S = 300.0
"""How long to wait for a node, and so much more for each SLOWEST_BYTES that it has to copy."""
SLOWEST_BYTES = 5_000_000
SLACK = 1.1
SLACK_BYTES = 16 * 1024 * 1024
"""A file that is larger than what is used by no more than both has nothing to give back."""


def missing(cluster: ClusterDescription, node_id: int, former_epoch: int) -> str | None:
    """What is missing until a node is back and in sync since its registration `former_epoch`; None: nothing."""
    node = next((broker for broker in cluster.brokers if broker.node_id == node_id), None)
    if node is None or node.node_epoch <= former_epoch or node.fenced:
        return f"node {node_id} is {'leaving' if node is not None and not node.fenced else 'away'}"
    partitions = [partition for topic in cluster.topics for partition in topic.partitions]
    behind = sum(node_id in one.replicas and node_id not in one.isr for one in partitions)
    return f"node {node_id} is back and catches up: {behind} partitions to go" if behind else None


async def node_epoch_of(admin: Admin, node_id: int) -> int:
    """Of the node's present registration; 0 where it has none."""
    return next((broker.node_epoch for broker in await admin.list_brokers() if broker.node_id == node_id), 0)


async def until_back(admin: Admin, before: StoreRoom, former_epoch: int, limit_s: float | None) -> StoreRoom:
    """Wait until the node is back and in sync; the figures then. Raises RequestTimeoutError."""
    wait_s = limit_s or PATIENCE_S + before.used_bytes / SLOWEST_BYTES
    deadline = time.monotonic() + wait_s
    told = ""
    while True:
        try:
            text = missing(await admin.describe_cluster(), before.node_id, former_epoch)
            if text is None:
                return await admin.store_room(before.node_id)
        except UnavailableError as error:  # of this node, perhaps the only one that was named
            text = str(error)
        if text != told and sys.stderr.isatty():
            say(text)
        told = text
        if time.monotonic() >= deadline:
            message = (
                f"node {before.node_id} is not back in sync after {wait_s:.0f} s; it goes on by itself, see its log"
            )
            raise RequestTimeoutError(Reason.NOT_SERVING, f"{message}; last: {text}")
        await asyncio.sleep(POLL_S)


def could_give_back(room: StoreRoom) -> int:
    """About how many bytes of the file hold nothing; 0 where it is not worth a word."""
    slack = room.used_bytes * SLACK + SLACK_BYTES
    return room.disk_bytes - room.used_bytes if room.disk_bytes > slack else 0


def show_before(settings: Settings, room: StoreRoom) -> int:
    """What could be given back; the exit code."""
    free = max(0, room.disk_bytes - room.used_bytes)
    sizes = f"{room.disk_bytes} bytes on disk, {room.used_bytes} used"
    text = f"node {room.node_id}: {sizes}; about {free} could be given back"
    _show(settings, {**_document(room), "dry_run": True}, text, (room.node_id, room.used_bytes, room.disk_bytes, None))
    return EXIT_OK


def show_after(settings: Settings, before: StoreRoom, after: StoreRoom) -> int:
    """What was given back; the exit code."""
    given = max(0, before.disk_bytes - after.disk_bytes)
    failed = not given and could_give_back(before) > 0
    text = f"node {before.node_id}: from {before.disk_bytes} to {after.disk_bytes} bytes on disk, {given} given back"
    document = {**_document(before), "dry_run": False, "given_back_bytes": given, "after": _sizes(after)}
    _show(settings, document, text, (before.node_id, after.used_bytes, before.disk_bytes, after.disk_bytes))
    if failed:
        say(f"penstock: the store of node {before.node_id} did not shrink; its log says why")
    return EXIT_FAILED if failed else EXIT_OK


def _sizes(room: StoreRoom) -> dict[str, int]:
    return {"used_bytes": room.used_bytes, "disk_bytes": room.disk_bytes}


def _document(room: StoreRoom) -> dict[str, Any]:
    return {"node_id": room.node_id, "before": _sizes(room)}


def _show(settings: Settings, document: dict[str, Any], text: str, row: tuple[int | None, ...]) -> None:
    table = Table(("node", "used_bytes", "disk_bytes_before", "disk_bytes_after"), [row])
    show(settings, document, table if settings.format is Format.TSV else text)
