"""Every golden trace passes on the real code and fails with its mutants; every mutant and rule has one."""

import re
from dataclasses import replace

import pytest

from tests.replication.mutants import MUTANTS, Mutant
from tests.traces import record
from tests.traces.player import ONLY_MUTANT, Trace, TraceError, all_traces, play, play_mutant

TRACES = all_traces()
BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
PAIRS = [(name, mutant) for name, trace in TRACES.items() for mutant in trace.mutants]
RULES = {*range(1, 15), 26, 27, 29}
"""Of DESIGN section 6, those that the replication world covers."""


@pytest.mark.parametrize("name", TRACES)
def test_passes_on_the_real_code(name: str) -> None:
    play(TRACES[name])


@pytest.mark.parametrize(("name", "mutant"), PAIRS)
def test_fails_with_its_mutant(name: str, mutant: str) -> None:
    violation = play_mutant(TRACES[name], BY_NAME[mutant])
    assert violation is not None
    assert violation.number == TRACES[name].mutants[mutant]


@pytest.mark.parametrize("name", TRACES)
def test_says_what_it_is(name: str) -> None:
    trace = TRACES[name]
    assert trace.name == name
    assert trace.shows
    assert trace.source


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_has_a_trace(mutant: Mutant) -> None:
    assert mutant.traces
    assert all(mutant.name in TRACES[name].mutants for name in mutant.traces)


def test_every_rule_has_a_mutant_and_a_trace() -> None:
    assert {int(rule) for mutant in MUTANTS for rule in re.findall(r"\d+", mutant.rule)} >= RULES
    assert {int(rule) for trace in TRACES.values() for rule in re.findall(r"\d+", trace.rule)} >= RULES


def test_mutants_have_different_names() -> None:
    assert len(BY_NAME) == len(MUTANTS)


# ---- the player is strict, the recorder finds


def example() -> Trace:
    return next(iter(TRACES.values()))


def test_a_step_that_cannot_be_done_is_an_error() -> None:
    trace = example()
    with pytest.raises(TraceError, match="cannot be done"):
        play(replace(trace, steps=["start A", *trace.steps]))


def test_a_step_of_the_mutant_alone_must_not_be_possible() -> None:
    trace = example()
    with pytest.raises(TraceError, match="is possible"):
        play(replace(trace, steps=[f"{ONLY_MUTANT}{step}" for step in trace.steps]))


def test_another_end_is_an_error() -> None:
    trace = example()
    with pytest.raises(TraceError, match="ends with"):
        play(replace(trace, end=trace.end | {"leader_epoch": 77}))


def test_a_message_of_another_kind_is_an_error() -> None:
    with pytest.raises(TraceError, match="cannot be done"):
        play(replace(example(), steps=["flush B", "outcomes B", "open B", "deliver B A fetch"]))


def test_a_step_is_written_in_one_way() -> None:
    with pytest.raises(ValueError, match="is not how"):
        play(replace(example(), steps=["deliver C A back=1 open"]))


def test_the_recorder_turns_a_seed_that_shows_a_mutant_into_a_short_trace() -> None:
    mutant = BY_NAME["14 duplicates answered"]
    with mutant.apply() as build:
        steps, number, _ = record.find(build, mutant.shows, range(20), most=1)
    texts, end = record.written(steps)
    trace = Trace("found", mutant.rule, "-", "-", {mutant.name: number}, texts, end)
    play(trace)
    violation = play_mutant(trace, mutant)
    assert violation is not None
    assert violation.number == "I9"
    assert len(steps) < 15
