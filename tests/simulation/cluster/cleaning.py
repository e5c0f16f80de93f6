"""What worlds with cleanup have: topics that are trimmed, retained and compacted, and nodes that do it all the time."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from unittest import mock

from penstock.node.cleanup import cleaner, compacting, schedule
from penstock.node.cleanup.compactor import Planned
from penstock.node.replication import source
from penstock.storage import Compact, Log, compaction, compaction_run
from penstock.storage.compaction import StoredRow
from penstock.storage.compaction_run import End, Run, Stored, Task

EVERYTHING = 2**62
SMALL = (
    (schedule, "PAUSE_MS", 250),
    (cleaner, "PORTION", 2),
    (cleaner, "PORTIONS", 2),
    (cleaner, "AGAIN_MS", 200),
    (compacting, "GROUP_WRITES", 2),
    (compaction, "MERGED_BYTES", 500),
    (compaction, "MERGED_BATCHES", 6),
    (compaction, "SMALL_BYTES", 150),
    (compaction_run, "READ_BYTES", 400),
    (source, "MESSAGE_BYTES", 500),
    (source, "COLD_READ_BYTES", 300),
)
"""Limits of the product, made for logs of some hundred records."""
ID = "id"
"""Header that says which record a tombstone is."""


@contextlib.contextmanager
def in_small() -> Iterator[None]:
    """Let limits fit the size of a world."""
    with contextlib.ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


# ---- topics


def draw_config(rng: random.Random) -> dict[str, Any]:
    """Draw all the settings of a topic that say what of it is kept."""
    policy = rng.choice(("delete", "compact", "compact", "compact,delete"))
    by_time = policy != "compact" and rng.random() < 0.5
    by_size = policy != "compact" and (not by_time or rng.random() < 0.3)
    return {
        "cleanup_policy": policy,
        "retention_ms": rng.choice((600, 1_500, 4_000)) if by_time else "none",
        "retention_bytes": rng.choice((300, 1_000, 3_000)) if by_size else 0,
        "delete_retention_ms": rng.choice((0, 0, 0, 400, 60_000)),
        "min_compaction_lag_ms": rng.choice((0, 0, 0, 400)),
        "max_compaction_lag_ms": rng.choice(("none", "none", 1_000)),
        "min_dirty_ratio": rng.choice((0, 0, 0.3)),
        "timestamp_type": rng.choice(("create", "create", "append")),
    }


def identity(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """What a record is known by: its value, or what a tombstone's header says."""
    return value if value is not None else next((text or b"" for name, text in headers if name == ID), b"")


# ---- compaction


class Readings:
    """A log as it was at several moments; each portion is read at a later one, as beside live traffic."""

    def __init__(self, taken: Sequence[Stored]) -> None:
        self._taken = list(taken)

    def stored_rows(self, start: int, end: int, max_bytes: int) -> Stored:
        """See compaction_run.Source."""
        reading = self._taken.pop(0) if len(self._taken) > 1 else self._taken[0]
        found: list[StoredRow] = []
        room = max_bytes
        for row in reading.rows:
            if row.batch.base_offset >= end or (found and room <= 0):
                break
            if row.batch.last_offset >= start:
                found.append(row)
                room -= len(row.batch.payload)
        return reading._replace(rows=found)


async def planned(log: Log, task: Task, rng: random.Random) -> AsyncIterator[Planned]:
    """As `node.cleanup.compactor.plan`, in this process, slowly: whatever else happens comes between."""
    taken = [log.stored_rows(0, EVERYTHING, EVERYTHING)]
    for _ in range(rng.choice((0, 1, 3))):
        await asyncio.sleep(0.1 * rng.random())
        taken.append(log.stored_rows(0, EVERYTHING, EVERYTHING))
    run = Run(Readings(taken), task)
    pause_s = rng.choice((0.002, 0.02, 0.3))
    for item in run.steps():
        await asyncio.sleep(pause_s * rng.random())
        if isinstance(item, End):
            at = item.cleaned_offset
            write = Compact(log, run.content, at, at, (), (), cleaned_offset=at)
            yield Planned(write, True, item.records, item.keys, item.due_ms)  # noqa: FBT003  a NamedTuple
        else:
            yield Planned(Compact(log, run.content, *item[:4], item.tombstones_below))
