"""Runs a workload on a real cluster, and holds its history to the rules on which the checker relies."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.chaos.checker import Verdict, check
from penstock.chaos.history import Entry, Recorder, entries
from penstock.chaos.workload import Access, Workload, WorkloadOptions
from penstock.client.devcluster import DevCluster

PATIENCE_S = 60.0
STOP_PATIENCE_S = 30.0


def nodes_of(cluster: DevCluster) -> dict[int, str]:
    """Give the nodes' own addresses."""
    return {node.node_id: node.client for node in cluster.plan.nodes}


async def until(condition: Callable[[], bool], workload: Workload | None = None) -> None:
    """Wait for a condition, or for the failure of this workload."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            assert workload is None or workload.failure is None
            await asyncio.sleep(0.02)


class Run:
    """A workload that runs, and its history once it has ended."""

    def __init__(self, workload: Workload, path: Path) -> None:
        self.workload = workload
        self.path = path

    async def until_acked(self, count: int) -> None:
        """Wait until so many writes more were acknowledged."""
        goal = self.workload.progress.acked + count
        await until(lambda: self.workload.progress.acked >= goal, self.workload)

    def entries(self) -> list[Entry]:
        """Give the whole history."""
        return list(entries(self.path))

    def verdict(self) -> Verdict:
        """Let the checker judge it."""
        return check(self.path)


@asynccontextmanager
async def running(
    cluster: DevCluster, folder: Path, options: WorkloadOptions, *, observed: bool = False, is_sound: bool = True
) -> AsyncIterator[Run]:
    """Run a workload, read everything in the end."""
    path = folder / "history.jsonl"
    with Recorder(path) as recorder:
        access = {host: Access(cluster.bootstrap) for host in ("c1", "c2")}
        workload = Workload(recorder, access, options, 7, nodes_of(cluster) if observed else None)
        try:
            await workload.prepare()
            workload.start()
            yield Run(workload, path)
        finally:
            await workload.stop(STOP_PATIENCE_S, is_sound=is_sound)
        await workload.final(cluster.bootstrap, PATIENCE_S)


def check_rules(history: list[Entry]) -> None:
    """Hold a history to the rules that every workload's has to keep."""
    begun: dict[int, Entry] = {}
    ended: dict[int, Entry] = {}
    for entry in history:
        if entry["type"] == "invoke":
            assert entry["op"] not in begun
            begun[entry["op"]] = entry
        elif "op" in entry:
            assert entry["op"] not in ended
            assert (entry["process"], entry["f"]) == tuple(begun[entry["op"]][name] for name in ("process", "f"))
            ended[entry["op"]] = entry
    assert begun.keys() == ended.keys()
    check_values(begun)
    check_incarnations(history)
    check_failures(history, begun, ended)


def check_values(begun: dict[int, Entry]) -> None:
    """No value is used twice."""
    sent = [entry["value"] for entry in begun.values() if entry["f"] == "send"]
    sent += [value for entry in begun.values() if entry["f"] == "append" for value in entry["values"]]
    assert len(sent) == len(set(sent))


def check_incarnations(history: list[Entry]) -> None:
    """After an outcome that is not known nothing more is invoked under that name."""
    unknown: set[str] = set()
    for entry in history:
        if entry["type"] == "invoke":
            assert entry["process"] not in unknown
        elif entry["type"] == "info" and "op" in entry:
            unknown.add(entry["process"])


def check_failures(history: list[Entry], begun: dict[int, Entry], ended: dict[int, Entry]) -> None:
    """What failed is nowhere; what was acknowledged by all stands where it was said to stand, in both isolations."""
    logs: dict[str, dict[tuple[str, int, int], int]] = defaultdict(dict)
    for entry in history:
        for read in entry.get("reads", ()) if entry.get("final") else ():
            for offset, value, _ in read["records"]:
                logs[entry["isolation"]][read["topic"], read["partition"], offset] = value
    for log in logs.values():
        there = set(log.values())
        for op, entry in begun.items():
            values = entry.get("values", [entry.get("value")])
            if values != [None] and ended[op]["type"] == "fail":
                assert not there & set(values)
            elif values != [None] and ended[op]["type"] == "ok" and entry.get("acks", "all") == "all":
                place = entry["topic"], entry["partition"]
                assert [log[(*place, ended[op]["offset"] + step)] for step in range(len(values))] == values
    if any(entry["f"] in {"send", "append"} for entry in begun.values()):
        assert len(logs) == 2
