"""A run's own cluster leaves no node behind, whenever the run is broken off."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import pytest

from penstock.chaos.cluster import Action
from penstock.chaos.local import LocalCluster, LocalOptions
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan


class SlowCluster(DevCluster):
    """Starts its node when `go_on` is set."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, make_plan([1, 2]))
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.runs = False

    def start(self, node_ids: Collection[int] | None = None) -> list[int]:
        self.begun.set()
        self.go_on.wait()
        self.runs = True
        return list(node_ids or ())

    def signal(self, node_id: int, number: signal.Signals) -> bool:
        was_there, self.runs = self.runs, False
        return was_there

    def kill(self, node_id: int) -> None:
        self.signal(node_id, signal.SIGKILL)


@pytest.mark.parametrize(
    "begin", [LocalCluster.start, lambda cluster: cluster.do(Action.START, 1)], ids=["at first", "again"]
)
async def test_a_node_whose_start_was_cut_off_does_not_outlive_the_run(
    begin: Callable[[LocalCluster], Awaitable[None]], tmp_path: Path
) -> None:
    slow = SlowCluster(tmp_path)
    cluster = LocalCluster(slow, LocalOptions(nodes=1))
    starting = asyncio.ensure_future(begin(cluster))
    await asyncio.to_thread(slow.begun.wait)
    starting.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    was_over = starting.done()
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await cluster.end()
    assert not was_over
    assert not slow.runs
