"""Deliberate bugs of retention, trimming and compaction, for real nodes.

A compaction is planned by a process of its own, which the node starts: the bug goes there with it.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from penstock.node.cleanup import cleaner
from penstock.node.cleanup import compactor as asking
from penstock.node.cleanup.retention import Batch, Choice, Retention
from penstock.node.replication.leader import LeaderCore
from penstock.storage import compaction, compactor
from penstock.storage.compaction import Survey
from penstock.storage.types import LogBatch

ROOT = Path(__file__).parents[2]


class Bug(NamedTuple):
    """One of them."""

    what: str
    """What is wrong then."""
    apply: Callable[[], AbstractContextManager[None]]
    """The node's code is broken while this lasts."""


# ---- in the node


def _own_start_is_enough(self: LeaderCore, offset: int) -> bool:
    return self._log.log_start_offset >= offset


def _drops_all_that_is_committed(
    batches: Iterable[Batch], size_bytes: int, high_watermark: int, retention: Retention, now_ms: int | None
) -> Choice:
    del size_bytes, retention, now_ms
    start = None
    for batch in batches:
        if batch.last_offset >= high_watermark:
            return Choice(start, whole=False, due_ms=None, due_bytes=0)
        start = batch.last_offset + 1
    return Choice(start, whole=False, due_ms=None, due_bytes=0)


@contextmanager
def put(owner: object, name: str, value: object) -> Iterator[None]:
    """Put something else there for a while."""
    with mock.patch.object(owner, name, value):
        yield


# ---- in the process that plans


_latest, _keys_of = Survey.latest, compaction._keys_of


def _nothing_is_the_latest(self: Survey, keys: list[bytes]) -> list[int]:
    return [offset + (offset >= 0) for offset in _latest(self, keys)]


def _tombstones_replace_nothing(batch: LogBatch) -> tuple[list[bytes], "range | list[int]"]:
    contents = compaction._contents_of(batch) if batch.header.record_count else None
    if contents is None:
        return _keys_of(batch)
    kept = [record for record in contents.records() if record.HasField("key") and record.HasField("value")]
    return [record.key for record in kept], [batch.base_offset + record.offset_delta for record in kept]


PLANNING: Mapping[str, tuple[object, str, object]] = {
    "the latest of a key goes": (Survey, "latest", _nothing_is_the_latest),
    "tombstones replace nothing": (compaction, "_keys_of", _tombstones_replace_nothing),
}
"""What is put there in the process that plans."""


@contextmanager
def _planned_by(name: str) -> Iterator[None]:
    def started(request: bytes) -> subprocess.Popen[bytes]:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.chaos.broken_dropping import plan; plan()"
        command = [sys.executable, "-P", "-c", code, name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(request)
        return process

    with mock.patch.object(asking, "_started", started):
        yield


def plan() -> None:
    """Be the process that plans, with the bug that is named."""
    with put(*PLANNING[sys.argv[1]]):
        compactor.main(sys.stdin.buffer, sys.stdout.buffer)


BUGS: Mapping[str, Bug] = {
    "trimmed by the leader alone": Bug(
        "a trim is answered before the followers have it",
        partial(put, LeaderCore, "has_trimmed", _own_start_is_enough),
    ),
    "retention leaves nothing": Bug(
        "all that is committed goes", partial(put, cleaner, "choose", _drops_all_that_is_committed)
    ),
    "the latest of a key goes": Bug(
        "compaction takes each record for an older one", partial(_planned_by, "the latest of a key goes")
    ),
    "tombstones replace nothing": Bug(
        "a tombstone goes in time, what it deletes does not", partial(_planned_by, "tombstones replace nothing")
    ),
}
