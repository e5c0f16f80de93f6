"""Topics that lose records, on a real cluster in health: what the parts do, and what stands in the history of it."""

from dataclasses import replace
from pathlib import Path

from penstock.chaos.history import HEADER, Entry, payload, value_of
from penstock.chaos.scenario import dropping
from penstock.chaos.workload import EndWatchers, WorkloadOptions
from penstock.client.devcluster import DevCluster
from tests.chaos.workload.running import check_incarnations, check_values, running

WHOLE = dropping(WorkloadOptions(topics=(), senders=(), ends=EndWatchers(topics=(), every_s=0.3)).only("ends"))
HASTY = replace(
    WHOLE,
    senders=tuple(replace(group, rate=3 * group.rate) for group in WHOLE.senders),
    trimmers=replace(WHOLE.trimmers, every_s=0.2),
)


def test_a_tombstone_stands_for_the_value_in_its_header() -> None:
    assert value_of(None, [("other", b"1"), (HEADER, payload(17))]) == 17
    assert value_of(None) == value_of(None, [(HEADER, None)]) == -1
    assert value_of(b"5", [(HEADER, payload(17))]) == 5


async def test_records_go_and_nothing_else_is_missing(cluster: DevCluster, tmp_path: Path) -> None:
    async with running(cluster, tmp_path, HASTY) as run:
        await run.until_acked(3_000)
    history = run.entries()
    begun = {entry["op"]: entry for entry in history if entry["type"] == "invoke"}
    check_values(begun)
    check_incarnations(history)
    verdict = run.verdict()
    assert verdict.valid, verdict
    assert verdict.allowed["dropped"] > 0
    assert verdict.counts["trim"]["ok"]
    assert verdict.counts["alter_topic"]["ok"]
    moved = {entry["topic"] for entry in history if entry["f"] == "start_offset" and entry["offset"]}
    assert moved == {"sized", "trimmed"}
    assert not any(counts["fail"] or counts["info"] for counts in verdict.counts.values())
    check_what_is_said_of_records(history, begun)


def check_what_is_said_of_records(history: list[Entry], begun: dict[int, Entry]) -> None:
    """Sizes and keys of all, no size but the key's where there is no value; and tombstones are read."""
    sends = {entry["value"]: entry for entry in begun.values() if entry["f"] == "send"}
    assert all("size" in send for send in sends.values())
    assert {send["topic"] for send in sends.values() if "key" in send} == {"compacted"}
    tombstones = {value for value, send in sends.items() if send.get("tombstone")}
    assert all(sends[value]["size"] == len(sends[value]["key"]) for value in tombstones)
    read = {row[1] for entry in history for read in entry.get("reads", ()) for row in read["records"]}
    assert tombstones & read
