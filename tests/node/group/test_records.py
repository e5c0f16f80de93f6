"""Records of __offsets: to their bytes and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.internal.v1 import offsets_pb2 as pb
from penstock.node.group.records import (
    Commit,
    CommitRecord,
    InvalidRecordError,
    OffsetsRecord,
    Rebalance,
    RebalanceRecord,
    Share,
    decode,
    encode,
    rebalance_of,
)
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo

TEXTS = st.text(max_size=20)
UNSIGNED = st.integers(0, 2**63 - 1)
COMMITS = st.builds(
    Commit,
    UNSIGNED,
    st.none() | st.integers(0, 2**31 - 1),
    TEXTS,
    st.integers(-(2**63), 2**63 - 1),
    TEXTS,
    TEXTS,
    UNSIGNED,
    UNSIGNED,
)
PARTITIONS = st.builds(GroupPartition, st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
REBALANCES = st.builds(
    Rebalance, UNSIGNED, TEXTS, st.lists(st.builds(Share, TEXTS, TEXTS, st.integers(0, 99))).map(tuple)
)
RECORDS = st.builds(CommitRecord, TEXTS, PARTITIONS, st.none() | COMMITS) | st.builds(
    RebalanceRecord, TEXTS, UNSIGNED, st.none() | REBALANCES
)


@given(record=RECORDS)
def test_a_record_comes_back_as_it_was(record: OffsetsRecord) -> None:
    assert decode(*encode(record)) == record


@given(record=RECORDS)
def test_equal_subjects_have_equal_keys_whatever_the_value(record: OffsetsRecord) -> None:
    gone = CommitRecord(*record[:2], None) if isinstance(record, CommitRecord) else RebalanceRecord(*record[:2], None)
    assert encode(record)[0] == encode(gone)[0]
    assert encode(gone)[1] is None


def test_a_kind_of_a_later_version_is_left_out() -> None:
    assert decode(b"\x1a\x02\x0a\x00", b"x") is None  # field 3


def test_what_is_no_record_is_told() -> None:
    with pytest.raises(InvalidRecordError):
        decode(b"\xff\xff", b"")
    key = pb.OffsetsKey(commit=pb.CommitKey(group_id="g", topic_id=bytes(16))).SerializeToString()
    with pytest.raises(InvalidRecordError):
        decode(key, b"\xff\xff")


def test_the_history_keeps_who_is_to_have_how_much() -> None:
    members = {
        name: MemberInfo(name, client_id=f"c-{name}", target=frozenset(GroupPartition(bytes(16), i) for i in range(n)))
        for name, n in (("a", 2), ("b", 1))
    }
    group = GroupInfo("g", group_epoch=9, generation=4, members=members, cause="b joined", rebalanced_ms=77)
    shares = (Share("a", "c-a", 2), Share("b", "c-b", 1))
    assert rebalance_of(group) == RebalanceRecord("g", 4, Rebalance(77, "b joined", shares))
