"""Producers in processes of their own, against the reference cluster: they end, whatever happens to them."""

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Any

import pytest

from penstock.client import PenstockError
from penstock.client.bench.crew import Workers
from penstock.client.bench.plan import Phase, Plan
from penstock.client.bench.tally import Tally
from penstock.protocol.reasons import Reason
from penstock.v1 import topic_service_pb2 as topic_pb
from tests.client.conftest import until
from tests.client.reference_server import Cluster


def plan(**changes: Any) -> Plan:
    return Plan(**{"topic": "t", "partitions": 3, "record_bytes": 100, "phase": Phase(records=101), **changes})


def pids(crew: Workers) -> list[int]:
    return [worker._process.pid for worker in crew._workers if worker._process is not None]


def are_gone(processes: Iterable[int]) -> bool:
    """Waited for, too."""
    for pid in processes:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        return False
    return True


async def test_their_sum_is_the_whole(cluster: Cluster) -> None:
    cluster.create("t", 3)
    async with Workers(cluster.bootstrap(), plan(producers=2, warmup_s=0.05)) as crew:
        warmed = await crew.warm_up()
        measured = await crew.measure()
        processes = pids(crew)
    assert warmed.done == warmed.sent > 0
    assert (measured.tally.sent, measured.tally.done, measured.tally.bytes) == (101, 101, 10_100)
    assert sum(len(cluster.records("t", partition)) for partition in range(3)) == warmed.done + 101
    assert len(measured.workers) == 2
    assert all(used.resident_bytes > 0 for used in measured.workers)
    assert are_gone(processes)


async def test_a_stop_ends_all_of_them_early(cluster: Cluster) -> None:
    cluster.create("t", 3)
    async with Workers(cluster.bootstrap(), plan(producers=2, rate=200.0, phase=Phase(seconds=3600))) as crew:
        await crew.warm_up()
        measuring = asyncio.create_task(crew.measure())
        await until(lambda: len(cluster.records("t")) > 10)
        crew.stop()
        tally = (await measuring).tally
    assert 10 < tally.sent == tally.done


async def test_one_that_is_killed_ends_the_run_and_the_others(cluster: Cluster) -> None:
    cluster.create("t", 3)
    processes: list[int] = []

    async def work() -> None:
        async with Workers(cluster.bootstrap(), plan(producers=3, rate=30.0, phase=Phase(seconds=3600))) as crew:
            await crew.warm_up()
            processes.extend(pids(crew))
            os.kill(processes[1], signal.SIGKILL)
            await crew.measure()

    with pytest.raises(PenstockError, match="ended early, with code -9") as caught:
        await work()
    assert caught.value.reason is Reason.INTERNAL
    assert are_gone(processes)


async def test_an_error_comes_back_as_it_was(cluster: Cluster) -> None:
    cluster.create("t", 3, topic_pb.TopicConfig(max_batch_bytes=10_000))
    warmed: list[Tally] = []

    async def work() -> None:
        large = plan(producers=2, record_bytes=20_000, warmup_s=0.05)
        async with Workers(cluster.bootstrap(), large) as crew:
            warmed.append(await crew.warm_up())
            await crew.measure()

    with pytest.raises(PenstockError, match="20026 bytes") as caught:
        await work()
    assert warmed[0].failures.keys() == {"RECORD_TOO_LARGE"}
    assert caught.value.reason is Reason.RECORD_TOO_LARGE
