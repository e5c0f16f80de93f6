"""Reads of the metadata, and the answers to its changes."""

from typing import Any, cast

import pytest

from penstock.node.api.reader import MetadataReader
from penstock.node.api.status import Context
from penstock.protocol.errors import PenstockError
from penstock.raft.image import EMPTY_IMAGE
from penstock.raft.view import View


class Call:
    def __init__(self, left_s: float) -> None:
        self.left_s = left_s

    def time_remaining(self) -> float:
        return self.left_s


def call(left_s: float = 30.0) -> Context:
    context: Any = Call(left_s)
    return cast("Context", context)


async def test_a_node_that_has_not_served_yet_answers_no_read() -> None:
    reader = MetadataReader(View(EMPTY_IMAGE), lambda: False)
    with pytest.raises(PenstockError, match="starting"):
        await reader.at_least(0, call())


async def test_a_read_of_a_version_that_does_not_come_says_so() -> None:
    reader = MetadataReader(View(EMPTY_IMAGE), lambda: True)
    with pytest.raises(PenstockError, match="version 7"):
        await reader.at_least(7, call(0.02))


@pytest.mark.parametrize("serves", [False, True])
async def test_a_change_that_was_made_is_never_answered_with_a_refusal(serves: bool) -> None:
    """The client would make it again elsewhere: a deletion then fails with UNKNOWN_TOPIC, though it was done."""
    reader = MetadataReader(View(EMPTY_IMAGE), lambda: serves)
    await reader.shows(7, call(0.02))
