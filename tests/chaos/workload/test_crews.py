"""Crews on a real cluster: members live and die as processes, the group reads everything, and so says the history."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.chaos.member.plan import MemberPlan
from penstock.chaos.workload import ORDERS, Members, Senders, TopicPlan, WorkloadOptions
from penstock.chaos.workload.crews import DRAIN_BOUND_S, DRAIN_PATIENCE_S, Pace
from penstock.chaos.workload.lives import Nursery
from penstock.client.devcluster import DevCluster
from penstock.client.ports import free_ports
from tests.chaos.workload.running import running, until

SHORT = Members(
    count=4,
    at_first=4,
    commits=("manual", "auto", "process"),
    static=1,
    every_s=0.25,
    freeze_s=(0.1, 0.3),
    stall_s=(0.1, 0.2),
    paces_s=(0.02,),
    session_timeout_ms=2_000,
    rebalance_timeout_ms=2_000,
    max_poll_interval_ms=3_000,
)
OPTIONS = replace(
    WorkloadOptions(topics=(TopicPlan(ORDERS, 4),), senders=(Senders(count=1, rate=200.0),)).only("senders"),
    members=(SHORT,),
    prefix="crews-",
)


async def test_a_group_reads_everything_whatever_befalls_its_members(cluster: DevCluster, tmp_path: Path) -> None:
    async with running(cluster, tmp_path, OPTIONS) as run:
        await until(lambda: run.workload.progress.read >= 1_500, run.workload)
    history = run.entries()
    joined = [entry for entry in history if entry["f"] == "group_joined"]
    assert len({entry["process"] for entry in joined}) == len(joined) > SHORT.count
    assert {entry["instance"] for entry in joined} == {"crew-1", None}
    assert {entry["commits"] for entry in joined} == set(SHORT.commits)
    (drained,) = [entry for entry in history if entry["f"] == "group_drained"]
    assert (drained["drained"], drained["unread"]) == (True, [])
    ends = {entry["partition"]: entry["offset"] for entry in history if entry["f"] == "end_of_log"}
    committed = {entry["partition"]: entry["offset"] for entry in history if entry["f"] == "group_offset"}
    assert committed == {partition: end for partition, end in ends.items() if end}
    verdict = run.verdict()
    assert verdict.valid, verdict
    assert verdict.counts["group_commit"]["ok"]
    assert modes_that_prove_ownership(history) == set(SHORT.commits)


def modes_that_prove_ownership(history: list[dict[str, Any]]) -> set[str]:
    """How those commit who gave something up in a poll that had begun after it was assigned to them."""
    modes = {entry["process"]: entry["commits"] for entry in history if entry["f"] == "group_joined"}
    assigned: dict[tuple[str, str, int], float] = {}
    proved = set()
    for entry in history:
        for topic, partition, *_ in (
            entry.get("partitions", ()) if entry["f"] in ("group_assigned", "group_released") else ()
        ):
            share = entry["process"], topic, partition
            if entry["f"] == "group_assigned":
                assigned[share] = entry["time"]
            elif entry["f"] == "group_released" and entry["began"] > assigned[share]:
                proved.add(modes[entry["process"]])
    return proved


async def test_in_the_end_slow_members_make_haste(cluster: DevCluster, tmp_path: Path) -> None:
    slow = replace(SHORT, group="slow", at_first=2, every_s=None, commits=("process",), paces_s=(1.0,))
    options = replace(OPTIONS, members=(slow,), prefix="slow-")
    async with running(cluster, tmp_path, options) as run:
        await until(lambda: run.workload.progress.acked >= 1_000, run.workload)
    (drained,) = [entry for entry in run.entries() if entry["f"] == "group_drained"]
    assert (drained["drained"], drained["unread"]) == (True, [])


async def test_where_the_cluster_is_not_whole_nothing_is_asked_of_the_group(
    cluster: DevCluster, tmp_path: Path
) -> None:
    options = replace(OPTIONS, members=(replace(SHORT, group="unsound", at_first=1, every_s=None),), prefix="unsound-")
    async with running(cluster, tmp_path, options, is_sound=False) as run:
        await until(lambda: run.workload.progress.read >= 100, run.workload)
    history = run.entries()
    assert not [entry for entry in history if entry["f"] in ("group_drained", "group_offset")]
    assert [entry for entry in history if entry["f"] == "group_left"]


async def test_members_are_gone_with_the_nursery_frozen_ones_too() -> None:
    (port,) = free_ports(1)
    plan = MemberPlan(f"127.0.0.1:{port}", "nobody", ("t",), clock_zero=0.0)
    told: list[object] = []
    async with Nursery() as nursery:
        frozen, killed = [await nursery.birth(plan, told.append) for _ in range(2)]
        await until(lambda: len(told) == 2)
        frozen.freeze()
        killed.kill()
        await killed.ended()
        assert (killed.is_over, frozen.is_over) == (True, False)
        os.kill(frozen.pid, 0)
    assert frozen.is_over
    async with asyncio.timeout(10):
        while _is_there(frozen.pid):  # noqa: ASYNC110  another process's end
            await asyncio.sleep(0.01)


def test_a_group_that_goes_on_is_waited_for() -> None:
    pace = Pace(10.0)
    assert pace.goes_on(None, 10.0)
    assert pace.goes_on([("t", 0, 0, 9), ("t", 1, 0, 9)], 50.0)
    assert pace.goes_on([("t", 0, 1, 9), ("t", 1, 8, 9)], 60.0)
    assert pace.goes_on([("t", 0, 2, 9)], 119.0)
    assert not pace.goes_on([], 130.0)
    assert (pace.unread, pace.waited_s, pace.is_too_slow) == ([], 120.0, False)


def test_a_partition_that_stands_still_is_not_hidden_by_the_others() -> None:
    pace = Pace(0.0)
    assert pace.goes_on([("t", 0, 1, 9), ("t", 1, 0, 9)], 0.0)
    assert pace.goes_on([("t", 0, 1, 9), ("t", 1, 4, 9)], DRAIN_BOUND_S - 1)
    assert not pace.goes_on([("t", 0, 1, 9), ("t", 1, 5, 9)], DRAIN_BOUND_S)
    assert (pace.waited_s, pace.is_too_slow) == (DRAIN_BOUND_S, False)


def test_where_nobody_says_what_is_committed_the_group_stands_still() -> None:
    pace = Pace(0.0)
    assert pace.goes_on(None, DRAIN_BOUND_S - 1)
    assert not pace.goes_on(None, DRAIN_BOUND_S)
    assert not pace.is_too_slow


def test_a_group_that_is_too_slow_proves_nothing() -> None:
    pace = Pace(0.0)
    goes_on = [pace.goes_on([("t", 0, second, 10**6)], float(second)) for second in range(int(DRAIN_PATIENCE_S) + 1)]
    assert goes_on.index(False) == DRAIN_PATIENCE_S
    assert pace.is_too_slow


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
