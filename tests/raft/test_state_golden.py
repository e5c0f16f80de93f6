"""Journals committed by earlier versions replay to the states that they made then."""

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.command import SUPPORTED_LEVEL, level_of
from penstock.raft.records import decode_image, encode_image
from tests.raft.golden import HISTORIES, journal_of, read_journal, state_of
from tests.raft.metadata_world import World

LEVELS = sorted(HISTORIES)


@pytest.mark.parametrize("level", LEVELS)
def test_the_journal_of_a_feature_level_replays_to_its_state(level: int) -> None:
    world = World()
    for data in read_journal(journal_of(level)):
        world.apply(data)
    assert world.image == decode_image(state_of(level).read_bytes())
    assert encode_image(world.image) == state_of(level).read_bytes()


@pytest.mark.parametrize("level", LEVELS)
def test_the_journal_has_every_kind_of_command_of_its_level(level: int) -> None:
    commands = [pb.MetadataCommand.FromString(data) for data in read_journal(journal_of(level))]
    fields = pb.MetadataCommand.DESCRIPTOR.oneofs_by_name["kind"].fields
    needed = {field.name: _level(field.name) for field in fields}
    kinds = {kind for kind, least in needed.items() if least == level or (least < level == 1)}
    assert {command.WhichOneof("kind") for command in commands if level_of(command) <= level} >= kinds


def test_every_feature_level_has_its_journal() -> None:
    assert [*range(1, SUPPORTED_LEVEL + 1)] == LEVELS


def _level(kind: str) -> int:
    command = pb.MetadataCommand()
    getattr(command, kind).SetInParent()
    return level_of(command)
