"""Whole workloads on real clusters: what they do is there, and their histories keep the rules."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penstock.chaos.workload import (
    LEDGER,
    ORDERS,
    Appenders,
    Changers,
    EndWatchers,
    Readers,
    Senders,
    TopicPlan,
    WorkloadOptions,
)
from penstock.client.devcluster import DevCluster
from tests.chaos.workload.running import check_rules, running, until

TOPICS = (TopicPlan(ORDERS, 4), TopicPlan(LEDGER, 2))
SENDERS = Senders(count=2, rate=150, delivery_timeout_ms=5_000, request_timeout_ms=2_000)
LIVELY = WorkloadOptions(
    topics=TOPICS,
    senders=(SENDERS,),
    appenders=Appenders(rate=20),
    readers=Readers(seek_every_s=0.5, reopen_every_s=1.5, seek_back=100),
    ends=EndWatchers(every_s=0.2),
    changers=Changers(every_s=0.1, most_topics=2, most_fresh=2),
)


async def test_all_parts_together_in_health(cluster: DevCluster, tmp_path: Path) -> None:
    options = replace(LIVELY, prefix="health-")
    async with running(cluster, tmp_path, options, observed=True) as run:
        await run.until_acked(800)
        progress = run.workload.progress
        await until(lambda: progress.read >= 800 and progress.refused > 0, run.workload)
    history = run.entries()
    check_rules(history)
    assert progress.failed == progress.unknown == progress.skipped == 0
    done = Counter((entry["f"], entry["type"]) for entry in history)
    assert {f for f, kind in done if kind == "ok"} >= {"send", "append", "create_topic", "describe_topic", "view"}
    assert {f for f, kind in done if kind == "ok"} >= {"assign", "poll", "end_offset"}
    verdict = run.verdict()
    assert verdict.valid, verdict


async def test_a_node_is_killed_under_load(start_cluster: Callable[[], DevCluster], tmp_path: Path) -> None:
    cluster = start_cluster()
    async with running(cluster, tmp_path, LIVELY, observed=True) as run:
        await run.until_acked(300)
        await asyncio.to_thread(cluster.kill, 1)
        await run.until_acked(600)
        await asyncio.to_thread(cluster.start, [1])
        await asyncio.to_thread(cluster.wait_serving, [1])
        await run.until_acked(300)
    check_rules(run.entries())
    verdict = run.verdict()
    assert verdict.valid, verdict


async def test_all_nodes_freeze_and_return(start_cluster: Callable[[], DevCluster], tmp_path: Path) -> None:
    """Outcomes come while nobody answers, what is too much is left out, and later all goes on."""
    cluster = start_cluster()
    senders = Senders(count=2, rate=100, delivery_timeout_ms=2_000, request_timeout_ms=1_000, most_under_way=150)
    options = WorkloadOptions(topics=(TopicPlan(ORDERS, 4),), senders=(senders,)).only("senders")
    async with running(cluster, tmp_path, options) as run:
        await run.until_acked(100)
        for node_id in cluster.node_ids:
            cluster.signal(node_id, signal.SIGSTOP)
        progress = run.workload.progress
        await until(lambda: progress.unknown > 0 and progress.failed > 0 and progress.skipped > 0, run.workload)
        for node_id in cluster.node_ids:
            cluster.signal(node_id, signal.SIGCONT)
        await run.until_acked(200)
    history = run.entries()
    check_rules(history)
    assert len({entry["process"] for entry in history if entry["f"] == "send"}) > 2  # later incarnations
    verdict = run.verdict()
    assert verdict.valid, verdict


async def test_senders_of_every_kind(cluster: DevCluster, tmp_path: Path) -> None:
    one = Senders(count=1, rate=100)
    groups = (
        replace(one, keyed=True, compression="zstd", sizes=(10, 2_000)),
        replace(one, idempotent=False, compression="lz4"),
        replace(one, acks="leader", idempotent=False),
        replace(one, acks="none", idempotent=False),
        replace(one, crash_every_s=0.3),
    )
    options = WorkloadOptions(topics=TOPICS, senders=groups, readers=Readers(count=2), prefix="kinds-")
    async with running(cluster, tmp_path, options.only("senders", "readers")) as run:
        await run.until_acked(1_000)
        await until(lambda: run.workload.progress.unknown > 100, run.workload)  # of acks none
    history = run.entries()
    check_rules(history)
    sent = [entry for entry in history if entry["f"] == "send" and entry["type"] == "invoke"]
    assert {(entry["acks"], entry["idempotent"]) for entry in sent} == {
        ("all", True),
        ("all", False),
        ("leader", False),
        ("none", False),
    }
    assert len({entry["process"] for entry in sent if entry["process"].startswith("c1/send5.")}) > 1
    verdict = run.verdict()
    assert verdict.valid, verdict


async def test_appenders_race(cluster: DevCluster, tmp_path: Path) -> None:
    options = WorkloadOptions(
        topics=(TopicPlan(LEDGER, 1),), appenders=Appenders(count=3, rate=50, unconditional=0.0), prefix="race-"
    )
    async with running(cluster, tmp_path, options.only("appenders")) as run:
        await run.until_acked(100)
        await until(lambda: run.workload.progress.refused >= 20, run.workload)
    history = run.entries()
    check_rules(history)
    failed = {entry["error"] for entry in history if entry["type"] == "fail"}
    assert failed == {"EXPECTED_OFFSET_MISMATCH"}
    expected = {entry["op"]: entry["expected"] for entry in history if entry["type"] == "invoke" and "values" in entry}
    for entry in history:
        if entry["f"] == "append" and entry["type"] == "ok":
            assert entry["offset"] == expected[entry["op"]]
    assert run.verdict().valid


async def test_an_appender_alone_is_never_refused(cluster: DevCluster, tmp_path: Path) -> None:
    """It knows where the log ends by what it was told of its own appends."""
    appenders = Appenders(count=1, rate=50, unconditional=0.3)
    options = WorkloadOptions(topics=(TopicPlan(LEDGER, 1),), appenders=appenders, prefix="alone-")
    async with running(cluster, tmp_path, options.only("appenders")) as run:
        await run.until_acked(60)
    assert run.workload.progress.refused == 0


async def test_topics_are_changed_grown_deleted_and_made_again(cluster: DevCluster, tmp_path: Path) -> None:
    changers = Changers(count=2, every_s=0.02, most_topics=1, most_fresh=2)
    options = WorkloadOptions(topics=(), changers=changers, prefix="changes-")
    wanted = {"create_topic": 12, "add_partitions": 2, "alter_topic": 2, "delete_topic": 8, "append": 4}

    async with running(cluster, tmp_path, options.only("changers"), observed=True) as run:
        await run.until_acked(80)
    history = run.entries()
    check_rules(history)
    done = Counter(entry["f"] for entry in history if entry["type"] == "ok" and "op" in entry)
    assert all(done[f] >= count // 2 for f, count in wanted.items()), done
    ids = {
        (entry["op"], entry["topic_id"]) for entry in history if entry["f"] == "create_topic" and "topic_id" in entry
    }
    assert len(ids) == len({topic_id for _, topic_id in ids})
    assert any(entry["f"] == "describe_topic" and not entry["exists"] for entry in history)
    verdict = run.verdict()
    assert verdict.valid, verdict


async def test_ends_are_asked_for_one_by_one_or_together(cluster: DevCluster, tmp_path: Path) -> None:
    for one_by_one in (True, False):
        ends = EndWatchers(topics=(ORDERS, LEDGER), every_s=0.02, one_by_one=one_by_one)
        options = WorkloadOptions(topics=TOPICS, senders=(SENDERS,), ends=ends, prefix=f"ends-{one_by_one}-")
        (tmp_path / str(one_by_one)).mkdir()
        async with running(cluster, tmp_path / str(one_by_one), options.only("senders", "ends")) as run:
            await run.until_acked(300)
        told = [entry for entry in run.entries() if entry["f"] == "end_offset" and entry["process"].startswith("c")]
        at_once = Counter((entry["process"], entry["began"]) for entry in told)
        assert set(at_once.values()) == ({1} if one_by_one else {2, 4})
        assert len({(entry["topic"], entry["partition"]) for entry in told}) > 1
        assert run.verdict().valid
