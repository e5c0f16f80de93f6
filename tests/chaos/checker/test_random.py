"""Random histories of a cluster that does everything right are valid; with a single lie in them they are not."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.chaos.checker import KINDS, Verdict, check
from tests.chaos.checker.corruptions import ALL, Choose, Corruption
from tests.chaos.checker.model import STEPS, Entry, Model, Step

LIES = 40
"""Histories for each kind of lie."""

_NUMBERS = st.integers(0, 9)
_HISTORIES: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(STEPS), _NUMBERS, _NUMBERS, _NUMBERS), max_size=60
)


def _judge(entries: list[Entry]) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return check(path)


@given(_HISTORIES)
def test_what_a_sound_cluster_gives_is_valid(steps: list[Step]) -> None:
    verdict = _judge(Model().run(steps))
    assert verdict.found == {}
    assert verdict.reasons == ()
    assert verdict.valid is True


@pytest.mark.parametrize("corruption", ALL, ids=lambda corruption: corruption.__name__)
@settings(max_examples=LIES)
@given(steps=_HISTORIES, data=st.data())
def test_with_a_lie_it_is_invalid(corruption: Corruption, steps: list[Step], data: st.DataObject) -> None:
    entries = Model().run(steps)
    corruption(entries, Choose(lambda count: data.draw(st.integers(0, count - 1))))
    verdict = _judge(entries)
    assert verdict.valid is False, verdict
    assert set(verdict.found) <= set(KINDS)
