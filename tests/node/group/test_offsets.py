"""The table of what is committed: a replay of its log, and what is deleted from it."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from penstock.node.group.offsets import GENERATIONS_KEPT, OffsetTable, is_stale
from penstock.node.group.records import Commit, CommitRecord, OffsetsRecord, Rebalance, RebalanceRecord
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo

ONE, OTHER = bytes(15) + b"1", bytes(15) + b"2"
NOTED = Rebalance(1, "because")


def table_of(records: Iterable[OffsetsRecord]) -> OffsetTable:
    table = OffsetTable()
    for record in records:
        table.apply(record)
    return table


def committed(group_id: str, topic_id: bytes, partition: int, offset: int, time_ms: int = 0) -> CommitRecord:
    return CommitRecord(group_id, GroupPartition(topic_id, partition), Commit(offset, commit_time_ms=time_ms))


@given(
    st.lists(
        st.builds(
            CommitRecord,
            st.sampled_from("ab"),
            st.builds(GroupPartition, st.sampled_from([ONE, OTHER]), st.integers(0, 2)),
            st.none() | st.builds(Commit, st.integers(0, 9)),
        )
    )
)
def test_the_table_is_the_last_value_of_each_key(records: list[CommitRecord]) -> None:
    last = {(record.group_id, record.partition): record.commit for record in records}
    table = table_of(records)
    for group_id in "ab":
        expected = {p: commit for (group, p), commit in last.items() if group == group_id and commit is not None}
        assert dict(table.of_group(group_id)) == expected
        assert all(table.committed(group_id, p) == last.get((group_id, p)) for _, p in last)
    for topic_id in (ONE, OTHER):
        left = {(group, p) for (group, p), commit in last.items() if commit is not None and p.topic_id == topic_id}
        assert table.of_topics({topic_id}) == [CommitRecord(group, p, None) for group, p in sorted(left)]


def test_a_deleted_group_leaves_nothing() -> None:
    records: list[OffsetsRecord] = [
        committed("a", ONE, 0, 5),
        committed("a", OTHER, 1, 6),
        RebalanceRecord("a", 1, NOTED),
        committed("b", ONE, 0, 7),
    ]
    table = table_of(records)
    tombstones = table.forgotten("a")
    assert len(tombstones) == 3
    after = table_of([*records, *tombstones])
    assert not after.of_group("a")
    assert not after.generations("a")
    assert after.committed("b", GroupPartition(ONE, 0)) == Commit(7)
    assert after.forgotten("a") == []


def test_the_latest_rebalances_stay() -> None:
    table = table_of(RebalanceRecord("a", generation, NOTED) for generation in range(1, GENERATIONS_KEPT + 1))
    assert table.outdated("a", GENERATIONS_KEPT) == []
    assert table.outdated("a", GENERATIONS_KEPT + 1) == [RebalanceRecord("a", 1, None)]
    assert table.outdated("a", GENERATIONS_KEPT + 2) == [RebalanceRecord("a", 1, None)]  # +1 was not noted
    assert table.outdated("none", 5) == []


def test_offsets_of_deleted_topics_go() -> None:
    table = table_of([committed("a", ONE, 0, 5), committed("b", OTHER, 1, 6)])
    assert table.of_topics({OTHER}) == [CommitRecord("b", GroupPartition(OTHER, 1), None)]


def test_the_table_tells_whose_offsets_it_has() -> None:
    table = table_of([committed("a", ONE, 0, 5), committed("a", OTHER, 1, 6), RebalanceRecord("b", 3, NOTED)])
    assert (set(table.group_ids()), set(table.topic_ids())) == ({"a", "b"}, {ONE, OTHER})
    for tombstone in table.of_topics({OTHER}):
        table.apply(tombstone)
    assert (set(table.group_ids()), set(table.topic_ids())) == ({"a", "b"}, {ONE})


def test_offsets_of_deleted_topics_go_in_portions() -> None:
    table = table_of([committed(group_id, ONE, partition, 5) for group_id in "ab" for partition in range(3)])
    everything = table.of_topics({ONE})
    assert len(everything) == 6
    assert table.of_topics({ONE}, 4) == everything[:4]


def test_offsets_expire_after_the_group_became_empty_and_after_their_own_commit() -> None:
    table = table_of([committed("a", ONE, 0, 5, time_ms=100), committed("a", ONE, 1, 6, time_ms=300)])
    empty = GroupInfo("a", group_epoch=1, emptied_ms=200)
    first, second = (CommitRecord("a", GroupPartition(ONE, index), None) for index in range(2))
    assert table.expired(empty, now_ms=1_199, retention_ms=1_000) == []
    assert table.expired(empty, now_ms=1_200, retention_ms=1_000) == [first]
    assert table.expired(empty, now_ms=1_300, retention_ms=1_000) == [first, second]
    assert not table.may_go(empty, now_ms=1_300, retention_ms=1_000)
    for record in (first, second):
        table.apply(record)
    assert table.may_go(empty, now_ms=1_300, retention_ms=1_000)
    assert not table.may_go(empty, now_ms=1_199, retention_ms=1_000)


def test_a_group_with_members_keeps_its_offsets() -> None:
    table = table_of([committed("a", ONE, 0, 5)])
    members = {"m": MemberInfo("m")}
    group = GroupInfo("a", group_epoch=1, members=members)
    assert table.expired(group, now_ms=10**12, retention_ms=1) == []
    assert not table.may_go(group, now_ms=10**12, retention_ms=1)


def test_a_commit_that_another_one_of_its_member_overtook_is_stale() -> None:
    def commit(sequence: int, offset: int = 5, member_id: str = "m") -> Commit:
        return Commit(offset, member_id=member_id, sequence=sequence)

    assert is_stale(commit(3), commit(2))
    assert is_stale(commit(3), commit(3, offset=6))
    assert not is_stale(commit(3), commit(3))  # a repeat
    assert not is_stale(commit(3), commit(4))
    assert not is_stale(None, commit(1))
    assert not is_stale(commit(3), commit(2, member_id="other"))
    assert not is_stale(commit(3), commit(0))  # not checked
    assert not is_stale(commit(3, member_id=""), commit(2, member_id=""))
