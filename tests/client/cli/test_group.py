"""`penstock group`, and what `penstock cluster` says of coordinators: in process, against the reference cluster."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock.client.cli import run
from penstock.client.cli.group_text import ranges
from penstock.client.cli.times import duration_text, parse_time, time_text
from penstock.protocol.batch import NewRecord, build
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb
from tests.client.conftest import ServedCluster
from tests.client.reference_groups import Groups

DAY_MS = 1_793_577_600_000
"""2026-11-02T00:00:00Z."""


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Penstock = Callable[..., Done]


@pytest.fixture
def penstock(
    served: ServedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Penstock:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP", served.cluster.bootstrap())
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)

    def call(*arguments: str) -> Done:
        code = run(arguments)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture
def groups(served: ServedCluster) -> Groups:
    """Group `billing` has two members, 3 partitions of 8 records, and one that moves; `old` has no members."""
    cluster = served.cluster
    cluster.create("orders", 3)
    for index in range(3):
        cluster.log("orders", index).append(build([NewRecord(None, b"v", 1000 + n) for n in range(8)]))
    made = cluster.groups
    group = made.create("billing")
    group.group.generation, group.group.assignor = 4, pb.ASSIGNOR_STICKY
    group.last_rebalance_cause, group.last_rebalance_ms = "member b joined", DAY_MS
    first = made.join("billing", "0123456789abcdef", client_id="worker", host="10.0.0.7", joined_ms=DAY_MS)
    second = made.join("billing", "b", instance_id="static-1")
    first.subscription.topics.append("orders")
    second.subscription.pattern = "ord.*"
    for index in range(3):
        first.partitions.add(topic="orders", partition=index, owned=True, revoked=index == 2)
        made.commit("billing", "orders", index, 8 - index)
        made.partition("billing", "orders", index).member_id = first.member_id
    second.partitions.add(topic_id=cluster.topics["orders"].topic_id, topic="orders", partition=2)
    for part in first.partitions:
        part.topic_id = cluster.topics["orders"].topic_id
    made.create("old")
    made.commit("old", "orders", 1, 2)
    made.partition("old", "orders", 0)
    return made


def test_groups_are_listed_by_state(penstock: Penstock, groups: Groups) -> None:
    assert penstock("group", "list").lines == [
        ["GROUP", "STATE", "MEMBERS", "GENERATION", "ASSIGNOR", "COORDINATOR"],
        ["billing", "stable", "2", "4", "sticky", "1"],
        ["old", "empty", "0", "0", "-", "1"],
    ]
    done = penstock("group", "list", "--state", "empty", "--state", "rebalancing", "--format", "json")
    assert done.json["groups"] == [
        {
            "group_id": "old",
            "state": "empty",
            "members": 0,
            "generation": 0,
            "assignor": None,
            "coordinator": 1,
        }
    ]
    assert penstock("group", "list", "--state", "dead").code == 2


def test_a_group_is_described_for_people(penstock: Penstock, groups: Groups) -> None:
    done = penstock("group", "describe", "billing")
    assert done.code == 0, done.err
    head, rebalance, *rest = done.out.splitlines()
    assert head == "billing  stable  2 members  generation 4  sticky  coordinator node 1  lag 3 (12.3 s)"
    assert rebalance == "  last rebalance 2026-11-02T00:00:00.000Z: member b joined"
    assert [line.split() for line in rest] == [
        ["MEMBER", "INSTANCE", "CLIENT", "HOST", "JOINED", "SUBSCRIBED", "PARTITIONS", "COMING", "GIVING_UP"],
        ["0123456789abcdef", "-", "worker", "10.0.0.7", "2026-11-02T00:00:00.000Z", "orders", "orders[0-1]", "-",
         "orders[2]"],
        ["b", "static-1", "-", "-", "1970-01-01T00:00:00.000Z", "/ord.*/", "-", "orders[2]", "-"],
        ["TOPIC", "PARTITION", "OWNER", "COMMITTED", "END", "LAG", "LAG_TIME", "NOTE"],
        ["orders", "0", "worker/01234567", "8", "8", "0", "0", "ms", "-"],
        ["orders", "1", "worker/01234567", "7", "8", "1", "12.3", "s", "-"],
        ["orders", "2", "worker/01234567", "6", "8", "2", "12.3", "s", "to", "static-1"],
    ]  # fmt: skip
    both = penstock("group", "describe", "--all").out
    assert "\n\nold  empty  0 members  generation 0  coordinator node 1  lag 6 (12.3 s), of 1 unknown\n" in both


def test_a_group_is_described_for_programs(penstock: Penstock, groups: Groups) -> None:
    groups.unreachable.add(("orders", 1))
    tsv = penstock("group", "describe", "billing", "old", "--format", "tsv").out.splitlines()
    assert tsv[0].split("\t")[:4] == ["group", "topic", "partition", "owner"]
    assert tsv[1].split("\t") == ["billing", "orders", "0", "0123456789abcdef", "8", "8", "0", "0", ""]
    assert tsv[2].split("\t")[-1].startswith("LEADER_NOT_AVAILABLE: ")
    assert tsv[3].split("\t")[-1] == "to b"
    assert tsv[4].split("\t") == ["old", "orders", "0", "", "", "8", "", "", ""]
    done = penstock("group", "describe", "billing", "nope", "--format", "json")
    assert (done.code, done.json["errors"]["nope"]["reason"]) == (1, "UNKNOWN_GROUP")
    (group,) = done.json["groups"]
    assert group["total"] == {"partitions": 3, "partitions_unknown": 1, "lag": 2, "lag_time_ms": 12_345}
    assert group["members"][1]["instance_id"] == "static-1"
    assert group["members"][0]["partitions"][2] == {"topic": "orders", "partition": 2, "owned": True, "revoked": True}
    assert group["partitions"][0]["committed"]["offset"] == 8
    assert [one.get("error", {}).get("reason") for one in group["partitions"]] == [None, "LEADER_NOT_AVAILABLE", None]


def test_lag_is_summed_by_topic_and_fails_where_a_leader_is_silent(penstock: Penstock, groups: Groups) -> None:
    done = penstock("group", "lag", "--all")
    assert (done.code, done.lines) == (
        0,
        [
            ["GROUP", "STATE", "TOPIC", "PARTITIONS", "UNKNOWN", "LAG", "LAG_TIME"],
            ["billing", "stable", "orders", "3", "0", "3", "12.3", "s"],
            ["old", "empty", "orders", "2", "1", "6", "12.3", "s"],
        ],
    )
    groups.unreachable.add(("orders", 2))
    done = penstock("group", "lag", "billing", "--format", "json")
    assert (done.code, list(done.json["errors"])) == (1, ["billing: orders[2]"])
    assert (done.json["groups"][0]["lag"], done.json["groups"][0]["topics"][0]["partitions_unknown"]) == (1, 1)
    assert "LEADER_NOT_AVAILABLE" in penstock("group", "lag", "--group", "billing").err


def test_members_for_people_and_programs(penstock: Penstock, groups: Groups) -> None:
    assert penstock("group", "members", "old").out == "group old has no members\n"
    tsv = penstock("group", "members", "--group", "billing", "--format", "tsv").out.splitlines()
    assert [line.split("\t")[4] for line in tsv] == ["joined", str(DAY_MS), "0"]
    assert len(penstock("group", "members", "billing", "--format", "json").json["members"]) == 2


def test_a_history_is_a_table_of_what_happened(penstock: Penstock, groups: Groups) -> None:
    made = pb.GroupRebalanced(generation=4, cause="member b joined")
    made.members.add(member_id="0123456789abcdef", client_id="worker", partitions=2)
    made.members.add(member_id="b", partitions=1)
    commit = pb.OffsetsCommitted(
        topic="orders", partition=1, offset=7, member_id="0123456789abcdef", client_id="worker", generation=4
    )
    groups.events["billing"] = [
        pb.GroupEvent(time_ms=DAY_MS, rebalanced=made),
        pb.GroupEvent(time_ms=DAY_MS + 1, committed=commit),
        pb.GroupEvent(time_ms=DAY_MS + 2, committed=pb.OffsetsCommitted(topic_id=b"\1" * 16, removed=True)),
    ]
    done = penstock("group", "history", "billing", "--limit", "3")
    assert done.lines == [
        ["TIME", "GENERATION", "EVENT", "MEMBER", "TOPIC", "PARTITION", "OFFSET", "DETAIL"],
        [*("2026-11-02T00:00:00.000Z", "4", "rebalance", "-", "-", "-", "-"),
         *("member", "b", "joined", "[worker/01234567", "2,", "b", "1]")],
        ["2026-11-02T00:00:00.001Z", "4", "commit", "worker/01234567", "orders", "1", "7", "-"],
        ["2026-11-02T00:00:00.002Z", "-", "removal", "-", "01" * 16, "0", "-", "-"],
    ]  # fmt: skip
    events = penstock("group", "history", "billing", "--format", "json").json["events"]
    assert [event["event"] for event in events] == ["rebalance", "commit", "removal"]
    assert (events[1]["member_id"], events[1]["offset"]) == ("0123456789abcdef", 7)
    assert events[0]["members"][1] == {"member_id": "b", "client_id": "", "partitions": 1}
    for number in range(5):
        groups.events["billing"][0].rebalanced.members.add(member_id=f"c{number}", partitions=0)
    assert "b 1, c0 0, c1 0, c2 0 and 2 more]" in penstock("group", "history", "billing").out
    assert "c3 0, c4 0]" in penstock("group", "history", "billing", "--format", "tsv").out
    assert penstock("group", "history", "old").out == "nothing is kept of the history of old\n"


def test_seeking_shows_before_and_after_and_asks(penstock: Penstock, groups: Groups) -> None:
    dry = penstock("group", "seek", "old", "--topic", "orders", "--to", "earliest", "--dry-run")
    assert (dry.code, dry.out.splitlines()[0]) == (0, "group old could move in 3 partitions")
    assert dry.lines[1:] == [
        ["TOPIC", "PARTITION", "FORMER", "OFFSET", "CHANGE", "ERROR"],
        ["orders", "0", "-", "0", "-", "-"],
        ["orders", "1", "2", "0", "-2", "-"],
        ["orders", "2", "-", "0", "-", "-"],
    ]
    unasked = penstock("group", "seek", "old", "--to", "earliest")
    assert (unasked.code, "Move group old in 1 partition? Add --yes" in unasked.err) == (2, True)
    assert groups.partition("old", "orders", 1).committed.offset == 2
    done = penstock("group", "seek", "old", "--to", "-1", "--yes", "--format", "json")
    assert done.json == {
        "group_id": "old",
        "partitions": [{"topic": "orders", "partition": 1, "former_offset": 2, "offset": 1}],
        "moved": 1,
        "dry_run": False,
    }
    again = penstock("group", "seek", "old", "--to-offset", "1")
    assert (again.code, again.out.splitlines()[0]) == (0, "group old does not move")
    partly = penstock("group", "seek", "--group", "old", "--topic", "orders:1,0", "--to-offset", "9", "--yes")
    assert (partly.code, partly.err.count("OFFSET_ABOVE_END")) == (1, 2)
    refused = penstock("group", "seek", "billing", "--to", "latest", "--yes", "--format", "json")
    assert (refused.code, refused.json["error"]["reason"]) == (1, "GROUP_NOT_EMPTY")
    groups.create("bare")
    assert penstock("group", "seek", "bare", "--to", "latest").out == "group bare has no committed offsets\n"


@pytest.mark.parametrize(
    ("options", "offset"),
    [
        (("--to", "latest"), 8),
        (("--to-latest",), 8),
        (("--to-earliest",), 0),
        (("--to", "5"), 5),
        (("--to", "+3"), 5),
        (("--shift-by", "-1"), 1),
        (("--to", "@1001"), 1),
        (("--to-datetime", "1970-01-01T00:00:01.001"), 1),
        (("--to", "1970-01-01T00:00:01Z"), 1),
    ],
)
def test_where_to_go_on_is_said_in_many_ways(
    penstock: Penstock, groups: Groups, options: tuple[str, ...], offset: int
) -> None:
    done = penstock("group", "seek", "old", *options, "--yes", "--format", "tsv")
    assert done.out.splitlines()[1].split("\t")[:4] == ["orders", "1", "2", str(offset)], done.err


def test_groups_are_deleted_one_by_one(penstock: Penstock, groups: Groups) -> None:
    assert penstock("group", "delete", "old").code == 2
    assert penstock("group", "delete", "old", "--dry-run").out == "group old could be deleted\n"
    done = penstock("group", "delete", "billing", "old", "--yes")
    assert (done.code, done.out) == (1, "group old deleted\n")
    assert "GROUP_NOT_EMPTY" in done.err
    assert penstock("group", "delete", "old", "--if-exists", "--yes").code == 0
    assert penstock("group", "delete", "old", "--yes", "--format", "json").json["error"]["reason"] == "UNKNOWN_GROUP"


def test_the_cluster_shows_who_coordinates_how_much(penstock: Penstock, groups: Groups, served: ServedCluster) -> None:
    served.cluster.create("__offsets", 4)
    groups.create("lost").group.ClearField("coordinator")
    described = penstock("cluster", "describe", "--format", "json").json["coordinators"]
    assert described == [
        {"node_id": 1, "offsets_partitions": 2, "groups": 2},
        {"node_id": 2, "offsets_partitions": 1, "groups": 0},
        {"node_id": 3, "offsets_partitions": 1, "groups": 0},
    ]
    assert [line[-2:] for line in penstock("cluster", "describe").lines[1:]] == [
        ["OFFSETS_PARTITIONS", "GROUPS"],
        *(["2", "2"], ["1", "0"], ["1", "0"]),
    ]
    status = penstock("cluster", "status", "--format", "json").json
    assert (status["groups"], status["groups_rebalancing"], status["groups_without_coordinator"]) == (3, 0, 1)


def test_partitions_are_written_as_runs() -> None:
    assert ranges([("b", 3), ("a", 0), ("b", 2), ("b", 1), ("b", 7)]) == "a[0] b[1-3,7]"
    assert ranges([]) is None


def test_times_and_durations_are_written_to_be_read() -> None:
    for ms in (0, -1, DAY_MS, DAY_MS + 7):
        assert parse_time(time_text(ms), "--to") == ms
    assert [duration_text(ms) for ms in (0, 999, 1000, 59_949, 240_000, 3_600_000 * 36)] == [
        *("0 ms", "999 ms", "1.0 s", "59.9 s", "4.0 min", "1.5 d"),
    ]


def test_why_one_cannot_join_is_told_once(penstock: Penstock, groups: Groups, caplog: pytest.LogCaptureFixture) -> None:
    done = penstock("consume", "orders", "--group", "g")
    assert (done.code, done.err.count("no living members")) == (1, 1)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_who_cannot_join_is_told_so(penstock: Penstock, groups: Groups) -> None:
    groups.faults.extend([Reason.LEADER_NOT_AVAILABLE] * 1_000)
    done = penstock("consume", "orders", "--group", "g", "--timeout", "0.5", "--format", "json")
    assert (done.code, done.json["error"]["reason"]) == (1, "NOT_SERVING"), done
    assert "could not be joined within 500 ms" in done.json["error"]["message"]
