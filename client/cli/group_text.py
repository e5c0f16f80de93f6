"""Consumer groups as rows, lines and JSON documents. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from penstock.client import (
    GroupDescription,
    GroupLag,
    GroupPartitionDescription,
    GroupSummary,
    MemberDescription,
    MemberPartitionDescription,
    OffsetReset,
)
from penstock.client.cli.output import Cell, Table, error_document, printable
from penstock.client.cli.times import duration_text, time_text

SHORT_ID = 8
"""Characters of a member's id that people are shown where it has another name too."""
PARTITION_COLUMNS = ("topic", "partition", "owner", "committed", "end", "lag", "lag_time", "note")

MEMBER_COLUMNS = (
    *("member", "instance", "client", "host", "joined", "subscribed"),
    *("partitions", "coming", "giving_up"),
)
LAG_COLUMNS = ("group", "state", "topic", "partitions", "unknown", "lag", "lag_time")
GROUP_COLUMNS = ("group", "state", "members", "generation", "assignor", "coordinator")


def counted(count: int, noun: str) -> str:
    """Write a number and its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def named(member_id: str, client_id: str, instance_id: str | None = None) -> str:
    """Name a member for people: a static one by its instance, else by its client and the begin of its id."""
    if instance_id:
        return instance_id
    return f"{client_id}/{member_id[:SHORT_ID]}" if client_id else member_id


def ranges(partitions: Iterable[tuple[str, int]]) -> str | None:
    """Write partitions as `orders[0-3,7] refunds[1]`; None where there are none."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    return " ".join(f"{topic}[{_runs(indexes)}]" for topic, indexes in by_topic.items()) or None


def _runs(indexes: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][-1] + 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ",".join("-".join(map(str, run)) for run in runs)


def lag_text(lag: GroupLag) -> str:
    """Write how far a group is behind."""
    if not lag.partitions:
        return "no partitions"
    if lag.offsets is None:
        return "lag unknown"
    time = f" ({duration_text(lag.time_ms)})" if lag.time_ms else ""
    unknown = f", of {lag.unknown} unknown" if lag.unknown else ""
    return f"lag {lag.offsets:,}{time}{unknown}"


def groups_table(groups: Sequence[GroupSummary]) -> Table:
    """Give groups a line each."""
    return Table(GROUP_COLUMNS, [tuple(summary_document(group).values()) for group in groups])


def summary_document(group: GroupSummary | GroupDescription) -> dict[str, Any]:
    """Give the form of a group in a JSON list."""
    members = group.members if isinstance(group, GroupSummary) else len(group.members)
    return {
        "group_id": group.group_id,
        "state": group.state,
        "members": members,
        "generation": group.generation,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
    }


def head_lines(group: GroupDescription) -> list[str]:
    """Give the lines over a group's tables."""
    coordinator = "no coordinator" if group.coordinator is None else f"coordinator node {group.coordinator}"
    facts = [printable(group.group_id), group.state, counted(len(group.members), "member")]
    facts += [f"generation {group.generation}"]
    facts += [group.assignor] if group.assignor is not None else []
    lines = ["  ".join([*facts, coordinator, lag_text(group.lag)])]
    if group.last_rebalance_ms is not None:
        lines.append(f"  last rebalance {time_text(group.last_rebalance_ms)}: {printable(group.last_rebalance_cause)}")
    return lines


def members_table(members: Sequence[MemberDescription], *, exact: bool) -> Table:
    """Give members a line each; `exact`: times in ms, for programs."""
    rows: list[Sequence[Cell]] = []
    for one in members:
        subscribed = " ".join([*one.topics, *([f"/{one.pattern}/"] if one.pattern is not None else [])])
        joined: Cell = one.joined_ms if exact else time_text(one.joined_ms)
        held = [part for part in one.partitions if part.owned and not part.revoked]
        coming = [part for part in one.partitions if not part.owned]
        going = [part for part in one.partitions if part.owned and part.revoked]
        shown = [ranges((part.topic, part.partition) for part in some) for some in (held, coming, going)]
        names = (one.member_id, one.instance_id, one.client_id or None, one.host or None)
        rows.append((*names, joined, subscribed or None, *shown))
    return Table(MEMBER_COLUMNS, rows)


def partitions_table(group: GroupDescription, *, exact: bool) -> Table:
    """Give a group's partitions a line each; `exact`: ids and ms, for programs."""
    names = {one.member_id: named(one.member_id, one.client_id, one.instance_id) for one in group.members}
    moves = _moves(group.members)
    rows: list[Sequence[Cell]] = []
    for one in group.partitions:
        note = str(one.error) if one.error is not None else None
        coming = moves.get((one.topic_id, one.partition))
        if note is None and coming is not None:
            note = f"to {coming if exact else names[coming]}"
        owner = one.member_id if exact or one.member_id is None else names.get(one.member_id, one.member_id)
        time: Cell = one.lag_time_ms if exact or one.lag_time_ms is None else duration_text(one.lag_time_ms)
        committed = None if one.committed is None else one.committed.offset
        rows.append((one.topic, one.partition, owner, committed, one.log_end_offset, one.lag, time, note))
    return Table(PARTITION_COLUMNS, rows)


def _moves(members: Sequence[MemberDescription]) -> dict[tuple[bytes, int], str]:
    """Who is to get a partition that it does not have yet."""
    return {(p.topic_id, p.partition): one.member_id for one in members for p in one.partitions if not p.owned}


def by_topic(group: GroupDescription) -> dict[str, GroupLag]:
    """How far the group is behind in each topic."""
    topics: dict[str, list[GroupPartitionDescription]] = {}
    for one in group.partitions:
        topics.setdefault(one.topic, []).append(one)
    return {topic: GroupLag.of(partitions) for topic, partitions in topics.items()}


def lag_table(groups: Sequence[GroupDescription], *, exact: bool) -> Table:
    """Give each topic of each group a line; `exact`: ms, for programs."""
    rows: list[Sequence[Cell]] = []
    for group in groups:
        for topic, lag in by_topic(group).items():
            time: Cell = lag.time_ms if exact or lag.time_ms is None else duration_text(lag.time_ms)
            rows.append((group.group_id, group.state, topic, lag.partitions, lag.unknown, lag.offsets, time))
    return Table(LAG_COLUMNS, rows)


def lag_document(group: GroupDescription) -> dict[str, Any]:
    """Give the form of a group's lag in JSON output."""
    topics = [{"topic": topic, **_lag_fields(lag)} for topic, lag in by_topic(group).items()]
    return {"group_id": group.group_id, "state": group.state, **_lag_fields(group.lag), "topics": topics}


def _lag_fields(lag: GroupLag) -> dict[str, Any]:
    return {
        "partitions": lag.partitions,
        "partitions_unknown": lag.unknown,
        "lag": lag.offsets,
        "lag_time_ms": lag.time_ms,
    }


def member_document(member: MemberDescription) -> dict[str, Any]:
    """Give the form of a member in JSON output."""
    document = asdict(member)
    document["topics"] = list(member.topics)
    document["partitions"] = [_member_partition_document(one) for one in member.partitions]
    return document


def _member_partition_document(one: MemberPartitionDescription) -> dict[str, Any]:
    return {"topic": one.topic, "partition": one.partition, "owned": one.owned, "revoked": one.revoked}


def partition_document(one: GroupPartitionDescription) -> dict[str, Any]:
    """Give the form of a group's partition in JSON output."""
    document: dict[str, Any] = {
        "topic": one.topic,
        "partition": one.partition,
        "member_id": one.member_id,
        "committed": None if one.committed is None else one.committed._asdict(),
        "log_start_offset": one.log_start_offset,
        "log_end_offset": one.log_end_offset,
        "lag": one.lag,
        "lag_time_ms": one.lag_time_ms,
    }
    if one.error is not None:
        document["error"] = error_document(one.error)
    return document


def group_document(group: GroupDescription) -> dict[str, Any]:
    """Give the form of a group in JSON output."""
    return {
        **summary_document(group),
        "last_rebalance_cause": group.last_rebalance_cause,
        "last_rebalance_ms": group.last_rebalance_ms,
        "members": [member_document(one) for one in group.members],
        "partitions": [partition_document(one) for one in group.partitions],
        "total": _lag_fields(group.lag),
    }


def reset_document(one: OffsetReset) -> dict[str, Any]:
    """Give the form of a moved offset in JSON output."""
    document: dict[str, Any] = {
        "topic": one.topic,
        "partition": one.partition,
        "former_offset": one.previous_offset,
        "offset": one.offset,
    }
    if one.error is not None:
        document["error"] = error_document(one.error)
    return document
