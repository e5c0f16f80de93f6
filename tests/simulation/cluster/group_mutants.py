"""Deliberate bugs in consumer groups, of coordinators and of members; whole-system worlds with a group find them all.

What breaks is in `broken.groups` and `broken.members`.

Not in the table, since worlds do not find them: changes of a former coordinator are applied (31: each is compared with
the group's epoch too), which the world of the pure cores finds (tests/node/group/mutants); and a session that counts
from the answer to a heartbeat (21), which that world finds with real members (tests/client/group/mutants).
"""

from penstock.client.group.commits import Commits
from penstock.client.group.member import MemberCore
from penstock.client.group.positions import Positions
from penstock.client.group.starting import Starting
from penstock.node.group import commits, coordinator, deciding, loading, membership
from penstock.node.group.commits import OffsetsLog
from penstock.node.group.membership import GroupCore
from penstock.node.group.session import Session
from tests.simulation.cluster.broken import groups, members, nodes
from tests.simulation.cluster.mutants import Mutant, Put, caught

__all__ = ["MUTANTS", "WORLDS", "caught"]

WORLDS = "cluster"
SOME = 100
MANY = 300
RARE = 1_000


def _mutant(name: str, rule: str, what: str, budget: int, *puts: Put) -> Mutant:
    return Mutant(name, rule, what, budget, puts, group=True)


MUTANTS: tuple[Mutant, ...] = (
    # --- who has what
    _mutant(
        "taken unasked",
        "21",
        "what is to be given up is taken at once",
        SOME,
        (deciding, "_give_up", groups.give_up_unasked),
    ),
    _mutant(
        "granted before the release",
        "21",
        "a partition changes its owner with the target",
        SOME,
        (deciding, "_share_out", groups.share_out_and_take),
    ),
    _mutant(
        "the target is told",
        "21",
        "a member is told that it has what it is to have",
        SOME,
        (GroupCore, "assignment", groups.assign_the_target),
    ),
    _mutant("short sessions", "21", "half of what members were told", MANY, (Session, "end_ms", groups.half_a_session)),
    _mutant(
        "the condemned are heard",
        "21",
        "who is to be taken out is told that it lives",
        MANY,
        (GroupCore, "on_heartbeat", groups.hear_the_condemned),
    ),
    _mutant(
        "sessions go on",
        "31",
        "a new coordinator takes members for silent",
        SOME,
        (GroupCore, "__init__", groups.no_new_sessions),
    ),
    _mutant(
        "removed at once",
        "21",
        "who cannot stay is taken out before its session ends",
        RARE,
        (Session, "condemn", groups.condemn_at_once),
    ),
    # --- commits
    _mutant(
        "every commit",
        "20",
        "a commit counts, whoever sends it",
        MANY,
        (GroupCore, "check_commit", groups.every_commit),
    ),
    _mutant(
        "committed by the leader",
        "commits",
        "a commit is answered when the leader has it",
        SOME,
        (commits, "append_of", groups.append_for_the_leader),
    ),
    _mutant(
        "moves with a commit under way",
        "31",
        "a partition changes its owner while a commit for it is in flight",
        RARE,
        (membership, "decide", groups.decide_whatever_is_in_flight),
    ),
    _mutant(
        "shown before it is committed",
        "17",
        "a commit is shown when it is appended",
        SOME,
        (OffsetsLog, "_next", groups.apply_first),
    ),
    _mutant(
        "loads any end",
        "12",
        "a new coordinator does not wait for the end of its log",
        MANY,
        (loading, "_known_end", groups.any_end),
    ),
    _mutant(
        "loads nothing",
        "17",
        "a new coordinator knows of no commits",
        SOME,
        (coordinator, "load", groups.load_nothing),
    ),
    # --- members
    _mutant(
        "member: no session",
        "21",
        "a member reads on, however long nobody has heard it",
        SOME,
        (MemberCore, "_check_session", nodes.nothing),
        (MemberCore, "valid_until_ms", members.always_valid),
    ),
    _mutant(
        "member: commits what is in hand",
        "commits",
        "auto-commit does not wait until it is asked past",
        MANY,
        (Positions, "asked_past", members.all_that_was_given),
    ),
    _mutant(
        "member: from the beginning",
        "commits",
        "a member does not begin at what is committed",
        SOME,
        (Starting, "resolve", members.from_the_beginning),
    ),
    _mutant(
        "member: unanswered is committed",
        "commits",
        "a commit without an answer is taken for done",
        SOME,
        (Commits, "_attempt", members.unanswered_is_committed),
    ),
)
