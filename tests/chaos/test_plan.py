"""Plans of faults: whatever the seed, profile and shape, a plan keeps what it promises."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.chaos.faults.base import Fault, Injected, Params, Shape, Site
from penstock.chaos.plan import (
    LENGTHS_S,
    STEPWISE,
    Plan,
    PlanError,
    Planned,
    Profile,
    from_json,
    make_plan,
    may_overlap,
    to_json,
    waves,
)

SHAPE = Shape(nodes=(1, 2, 3, 4), voters=(1, 2, 3), hosts=("c1", "c2"))


class Named:
    """A fault that only draws."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = "none"

    def missing(self, site: Site) -> str | None:
        return None

    def draw(self, rng: random.Random, shape: Shape) -> Params:
        return {"node": rng.choice(shape.nodes), "share": rng.random(), "pair": (1, 2)}

    async def inject(self, site: Site, params: Params) -> Injected:
        raise NotImplementedError


GROUP_NAMES: Mapping[str, tuple[str, ...]] = {
    "process": ("kill-node", "kill-all", "pause-all-briefly", "rolling-restart"),
    "link": ("cut-node", "latency"),
    "disk": ("disk-full",),
}


def named(name: str) -> Fault:
    class One(Named):
        pass

    One.name = name
    return One()


GROUPS = {group: [named(name) for name in names] for group, names in GROUP_NAMES.items()}
GROUP_OF = {name: group for group, names in GROUP_NAMES.items() for name in names}


def ranges(least: float, most: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(least, most), st.floats(least, most)).map(lambda pair: (min(pair), max(pair)))


profiles = st.builds(
    Profile,
    weights=st.dictionaries(st.sampled_from(sorted(GROUP_OF)), st.floats(0.1, 10.0), min_size=1),
    length_s=ranges(0.5, 30.0),
    lengths_s=st.dictionaries(st.sampled_from(sorted(GROUP_OF)), ranges(0.5, 9.0), max_size=2),
    quiet_s=ranges(1.0, 40.0),
    warm_up_s=st.floats(0.0, 60.0),
    overlap=st.floats(0.0, 1.0),
)
plans = st.tuples(st.integers(0, 2**64), st.floats(100.0, 900.0), profiles)


def drawn(seed: int, duration_s: float, profile: Profile) -> Plan:
    return make_plan(seed, duration_s, profile, SHAPE, GROUPS)


@given(plans)
def test_every_fault_ends_in_time_and_keeps_its_length(asked: tuple[int, float, Profile]) -> None:
    _, duration_s, profile = asked
    plan = drawn(*asked)
    assert [planned.id for planned in plan] == list(range(1, len(plan) + 1))
    for planned in plan:
        least, most = profile.length_of(planned.fault)
        assert least - 0.001 <= planned.duration_s <= most + 0.001
        assert profile.warm_up_s - 0.001 <= planned.at_s
        assert planned.end_s <= duration_s + 0.001


@given(plans)
def test_between_waves_it_is_quiet(asked: tuple[int, float, Profile]) -> None:
    profile = asked[2]
    for before, after in pairwise(waves(drawn(*asked))):
        quiet_s = after[0].at_s - max(planned.end_s for planned in before)
        assert profile.quiet_s[0] - 0.01 <= quiet_s <= profile.quiet_s[1] + 0.01


@given(plans)
def test_at_most_two_compatible_faults_overlap(asked: tuple[int, float, Profile]) -> None:
    for wave in waves(drawn(*asked)):
        assert len(wave) <= 2
        if len(wave) == 2:
            assert may_overlap(wave[0].fault, wave[1].fault, GROUP_OF)
            assert wave[0].at_s < wave[1].at_s < wave[0].end_s


@given(plans)
def test_each_fault_comes_once_before_any_comes_again(asked: tuple[int, float, Profile]) -> None:
    first = [wave[0].fault for wave in waves(drawn(*asked))][: len(asked[2].weights)]
    assert len(set(first)) == len(first)


@given(plans)
def test_the_same_seed_gives_the_same_plan_and_json_gives_it_back(asked: tuple[int, float, Profile]) -> None:
    plan = drawn(*asked)
    turned = {group: GROUPS[group][::-1] for group in reversed(GROUPS)}
    weights = dict(reversed(list(asked[2].weights.items())))
    profile = Profile(**{**{name: getattr(asked[2], name) for name in Profile.__slots__}, "weights": weights})
    assert make_plan(asked[0], asked[1], profile, SHAPE, turned) == plan
    assert from_json(json.loads(json.dumps(to_json(plan)))) == plan


def test_a_plan_depends_on_no_hash_seed() -> None:
    program = (
        "import json; from tests.chaos.test_plan import drawn, to_json, Profile, GROUP_OF;"
        "print(json.dumps(to_json(drawn(7, 600.0, Profile(dict.fromkeys(set(GROUP_OF), 1.0), overlap=0.5)))))"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (1, 2)
    ]
    assert texts[0] == texts[1]
    assert len(json.loads(texts[0])) > len(GROUP_OF)


def test_another_seed_gives_another_plan() -> None:
    profile = Profile(dict.fromkeys(GROUP_OF, 1.0))
    assert len({json.dumps(to_json(drawn(seed, 900.0, profile))) for seed in range(20)}) == 20


def test_every_share_of_waves_overlaps_that_is_asked_for() -> None:
    profile = Profile(dict.fromkeys(GROUP_OF, 1.0), overlap=0.5)
    found = [len(wave) for seed in range(50) for wave in waves(drawn(seed, 2000.0, profile))]
    assert 0.4 < found.count(2) / len(found) < 0.6


def test_weights_say_how_often_a_fault_comes_again() -> None:
    profile = Profile({"kill-node": 9.0, "latency": 1.0})
    found = [wave[0].fault for seed in range(20) for wave in waves(drawn(seed, 5000.0, profile))[2:]]
    assert 0.85 < found.count("kill-node") / len(found) < 0.95


def test_a_brief_pause_stays_below_the_session_timeout_and_others_go_past_it() -> None:
    assert LENGTHS_S["pause-all-briefly"][1] < 1.5
    assert min(LENGTHS_S[f"pause-{role}"][0] for role in ("node", "leader", "controller")) > 1.5


def test_faults_with_steps_of_their_own_overlap_with_no_fault_of_processes() -> None:
    assert "rolling-restart" in STEPWISE
    assert not may_overlap("rolling-restart", "kill-node", GROUP_OF)
    assert not may_overlap("kill-node", "rolling-restart", GROUP_OF)
    assert may_overlap("rolling-restart", "latency", GROUP_OF)
    assert may_overlap("kill-node", "pause-all-briefly", GROUP_OF)
    assert not may_overlap("kill-node", "kill-node", GROUP_OF)
    assert not may_overlap("cut-node", "latency", GROUP_OF)


def test_no_faults_are_a_plan_too() -> None:
    assert drawn(1, 10.0, Profile({})) == ()


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile({"flood": 1.0}), "there are no faults flood"),
        (Profile({"latency": 0.0}), "weights must be above 0: latency"),
        (Profile({"latency": 1.0}, length_s=(3.0, 2.0)), r"no range of seconds: \(3.0, 2.0\)"),
        (Profile({"latency": 1.0}, warm_up_s=30.0), "20 s have no room for a fault after 30 s"),
    ],
)
def test_what_cannot_be_planned_is_said(profile: Profile, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        drawn(1, 20.0, profile)


@pytest.mark.parametrize("items", [[{}], [{"id": "one"}], [3]])
def test_what_is_no_plan_is_said(items: list[dict[str, object]]) -> None:
    with pytest.raises(PlanError, match="no plan of faults"):
        from_json(items)


def test_waves_are_divided_where_no_fault_is_under_way() -> None:
    def at(number: int, at_s: float, duration_s: float) -> Planned:
        return Planned(number, at_s, "latency", duration_s, {})

    one, two, three = at(1, 1.0, 5.0), at(2, 3.0, 1.0), at(3, 6.0, 1.0)
    assert waves((three, one, two)) == [(one, two), (three,)]


def test_coordinators_are_not_disturbed_while_nodes_are_restarted_in_steps() -> None:
    group_of = {"kill-coordinator": "group", "rebalance-storm": "group", "rolling-restart": "process", "ring": "link"}
    assert not may_overlap("kill-coordinator", "rolling-restart", group_of)
    assert not may_overlap("rolling-restart", "kill-coordinator", group_of)
    assert may_overlap("rebalance-storm", "rolling-restart", group_of)
    assert may_overlap("kill-coordinator", "ring", group_of)
    assert may_overlap("kill-coordinator", "rebalance-storm", group_of)
