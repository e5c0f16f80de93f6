"""Journals committed by earlier versions replay to the states that they made then."""

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.records import decode_image, encode_image
from tests.raft.golden import JOURNAL, STATE, read_journal
from tests.raft.metadata_world import World


def test_the_journal_of_feature_level_1_replays_to_its_state() -> None:
    world = World()
    for data in read_journal(JOURNAL):
        world.apply(data)
    assert world.image == decode_image(STATE.read_bytes())
    assert encode_image(world.image) == STATE.read_bytes()


def test_the_journal_has_every_kind_of_command_of_its_level() -> None:
    commands = [pb.MetadataCommand.FromString(data) for data in read_journal(JOURNAL)]
    kinds = {field.name for field in pb.MetadataCommand.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert {command.WhichOneof("kind") for command in commands if command.feature_level <= 1} == kinds
