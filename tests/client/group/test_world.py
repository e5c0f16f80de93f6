"""Real members and real coordinators in one world where everything goes wrong: rules 20, 21 and 31 hold for both."""

import pytest

from penstock.client.group.member import MemberCore
from tests.client.group.mutants import BelievesFromTheAnswer, KeepsWhatIsNotNamed, world_of
from tests.client.group.real_member import RealWorld
from tests.node.group.schedule import run
from tests.node.group.world import Violation


@pytest.mark.parametrize("seed", range(4))
def test_members_and_coordinators_keep_the_rules_together(seed: int) -> None:
    run(RealWorld(), seed)


def run_all(core: type[MemberCore], seeds: range) -> None:
    for seed in seeds:
        run(world_of(core), seed)


def test_a_member_that_keeps_what_is_not_its_own_is_found() -> None:
    with pytest.raises(Violation, match="I7"):
        run_all(KeepsWhatIsNotNamed, range(30))


def test_a_member_whose_session_counts_from_the_answer_is_found() -> None:
    with pytest.raises(Violation, match="I1"):
        run_all(BelievesFromTheAnswer, range(30))
