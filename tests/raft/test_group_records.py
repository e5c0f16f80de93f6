"""Groups in snapshots: encoded anew only where they changed, and then as protobuf would have done it."""

from dataclasses import replace

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft import group_records
from penstock.raft.group_records import GroupEncoder
from penstock.raft.image import EMPTY_IMAGE, GroupInfo, GroupPartition, MemberInfo, MetadataImage
from penstock.raft.records import encode_image


def group(name: str, generation: int) -> GroupInfo:
    owned = {GroupPartition(b"t" * 16, index): generation for index in range(generation)}
    member = MemberInfo("m", topics=("t",), owned=owned, target=frozenset(owned))
    return GroupInfo(name, generation, generation, 1, {"m": member})


def image(*groups: GroupInfo) -> MetadataImage:
    return replace(EMPTY_IMAGE, version=7, feature_level=4, groups={one.group_id: one for one in groups})


def test_snapshots_one_after_the_other_are_what_protobuf_makes_of_each() -> None:
    encoder = GroupEncoder()
    a, b, c = group("a", 1), group("b", 200), group("c", 3)
    for present in (image(), image(c, a), image(c, a, b), image(c, replace(b, generation=300)), image(c)):
        encoded = encode_image(present, encoder)
        assert encoded == pb.MetadataSnapshot.FromString(encoded).SerializeToString(deterministic=True)
        assert encoded == encode_image(present)


def test_only_what_changed_is_encoded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = GroupEncoder()
    a, b = group("a", 1), group("b", 2)
    encoder.encode({"a": a, "b": b})
    made: list[GroupInfo] = []

    def note(one: GroupInfo) -> pb.GroupRecord:
        made.append(one)
        return pb.GroupRecord()

    monkeypatch.setattr(group_records, "group_record", note)
    changed = replace(b, generation=3)
    encoder.encode({"a": a, "b": changed})
    assert made == [changed]
