"""Reads what members of consumer groups did into Facts."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.ingest_writes import spot_of
from penstock.chaos.checker.logs import FARTHEST
from penstock.chaos.checker.malformed import Malformed, moment, natural, text
from penstock.chaos.checker.memberships import (
    AUTO,
    MODES,
    NEVER_GRANTED,
    PROCESS,
    UNKNOWN_POSITION,
    Backward,
    Commit,
    Committed,
    Drain,
    Holding,
    Passed,
    RanOn,
    Share,
)
from penstock.chaos.checker.writes import FAIL, INFO, OK
from penstock.chaos.history import Entry

_ENDS = {"ok": OK, "fail": FAIL, "info": INFO}
Reposition = Callable[[int, int, int | None], None]
"""Process, spot and position: reading goes on there; None: nobody says where."""


@dataclass(slots=True)
class _Member:
    """One life of a member, as far as it is read in."""

    group: int
    mode: str
    held: dict[int, Holding] = field(default_factory=dict)
    """By spot."""
    latest: dict[int, Holding] = field(default_factory=dict)
    """By spot, those that are over included."""
    unasked: dict[int, Passed] = field(default_factory=dict)
    """By spot: what was handed to it last, which it has not asked past."""
    given_up: set[int] = field(default_factory=set)
    """Spots that it released, and was not assigned again."""
    generation: int = 0
    has_left: bool = False


class GroupsReader:
    """Functions `group_…` and `handed`; and polls of members."""

    def __init__(self, facts: Facts, reposition: Reposition) -> None:
        self._facts = facts
        self._groups = facts.groups
        self._reposition = reposition
        self._members: dict[int, _Member] = {}
        """By process."""
        self._commits: dict[int, list[Commit]] = {}
        """Those under way, by op."""
        self.handlers = {
            "group_joined": self.joined,
            "group_assigned": self.assigned,
            "group_released": self.released,
            "group_lost": self.lost,
            "group_left": self.left,
            "group_commit": self.commit,
            "group_offset": self.offset,
            "group_drained": self.drained,
            "handed": self.handed,
        }

    def joined(self, entry: Entry) -> None:
        """Take a line of a life that begins."""
        self._count(entry)
        process = self._facts.processes.number(entry["process"])
        group = self._groups.groups.number(text(entry, "group"))
        if entry["commits"] not in MODES:
            raise Malformed(f"commits is {entry['commits']!r}, not one of {', '.join(MODES)}")
        if process in self._members:
            raise Malformed(f"{entry['process']} joins twice")
        self._members[process] = _Member(group, entry["commits"])
        self._groups.topics[group].update(entry["topics"])

    def assigned(self, entry: Entry) -> None:
        """Take a line of partitions that a member is given."""
        self._count(entry)
        process, member = self._of(entry)
        name = text(entry, "member")
        generation = natural(entry, "generation")
        if generation < member.generation:
            self._is_backward(entry, member, f"was told generation {generation} after {member.generation}")
        member.generation = max(member.generation, generation)
        for fields in entry["partitions"]:
            topic, partition, granted, position = fields
            spot = spot_of(self._facts, {"topic": topic, "partition": partition})
            if granted > generation:
                what = f"was told that {self._facts.spots[spot]} was granted in generation {granted}, in {generation}"
                self._is_backward(entry, member, what)
            place = UNKNOWN_POSITION if position is None else natural({"position": position}, "position")
            share = Share(member.group, spot)
            holding = Holding(share, process, name, generation, granted, place, entry["time"], self._facts.line)
            member.held[spot] = member.latest[spot] = holding
            member.given_up.discard(spot)
            self._groups.holdings[share].append(holding)
            self._reposition(process, spot, position)

    def released(self, entry: Entry) -> None:
        """Take a line of partitions that a member gives up: it had them when that began."""
        self._count(entry)
        _, member = self._of(entry)
        began = moment(entry, "began")
        for spot in self._spots(entry):
            holding = member.held.pop(spot, None)
            if holding is not None:
                holding.proved = max(holding.proved, began)
                self._ask_past(member, [spot], began)
                member.given_up.add(spot)

    def lost(self, entry: Entry) -> None:
        """Take a line of partitions that a member has no more."""
        self._count(entry)
        _, member = self._of(entry)
        for spot in self._spots(entry):
            member.held.pop(spot, None)

    def left(self, entry: Entry) -> None:
        """Take a line of a life that ends in order."""
        self._count(entry)
        _, member = self._of(entry)
        member.has_left = True
        member.held.clear()

    def polled(self, entry: Entry) -> None:
        """Take a line of a poll, if a member's: after what it says of the records is read in."""
        if "group" not in entry or entry["type"] != "ok":
            return
        _, member = self._of(entry)
        began = moment(entry, "began")
        self._ask_past(member, list(member.unasked), began)
        for read in entry["reads"]:
            spot = spot_of(self._facts, read)
            if read["records"]:
                first, end = read["from"], read["to"]
                self._hand(member, spot, [(first, end)], began)
                if member.mode == AUTO:
                    member.unasked[spot] = Passed(began, first, end)

    def handed(self, entry: Entry) -> None:
        """Take a line of records that a member's handler is done with, in any order."""
        self._count(entry)
        process, member = self._of(entry)
        spot = spot_of(self._facts, entry)
        offsets = [natural({"offset": offset}, "offset") for offset, *_ in entry["records"]]
        self._hand(member, spot, [(offset, offset + 1) for offset in offsets], None)
        share, began, at = Share(member.group, spot), moment(entry, "began"), moment(entry, "at")
        if member.mode == PROCESS:
            self._groups.passed[share] += [Passed(at, offset, offset + 1) for offset in offsets]
        if spot in member.given_up:
            line = self._facts.line
            self._groups.ran_on += [RanOn(share, process, offset, line, began, at) for offset in offsets]

    def commit(self, entry: Entry) -> None:
        """Take a line of a commit by a call."""
        kind, op = entry["type"], entry["op"]
        self._facts.counts["group_commit"][kind] += 1
        if kind == "invoke":
            if op in self._commits:
                raise Malformed(f"op {op} is invoked twice")
            self._commits[op] = [self._committing(entry, *one) for one in entry["offsets"]]
            self._groups.commits += self._commits[op]
            return
        commits = self._commits.pop(op, None)
        if commits is None:
            raise Malformed(f"op {op} is not a commit under way")
        for commit in commits:
            commit.outcome, commit.completed = _ENDS[kind], entry["time"]

    def offset(self, entry: Entry) -> None:
        """Take a line of an offset that is committed in the end."""
        self._count(entry)
        share = Share(self._groups.groups.number(text(entry, "group")), spot_of(self._facts, entry))
        self._groups.committed[share] = Committed(share, natural(entry, "offset"), self._facts.line, entry["time"])

    def drained(self, entry: Entry) -> None:
        """Take a line that says whether a group has read everything."""
        group = self._groups.groups.number(text(entry, "group"))
        unread = [
            f"{text({'topic': topic}, 'topic')}-{partition} from {position} to {end}"
            for topic, partition, position, end in entry["unread"]
        ]
        waited_s = moment(entry, "waited_s")
        self._groups.drains.append(
            Drain(group, bool(entry["drained"]), waited_s, unread, self._facts.line, entry["time"])
        )

    def finish(self) -> None:
        """All is read in. Who broke off may have asked past what it was handed last: nobody can say."""
        for member in self._members.values():
            if not member.has_left:
                for spot, passed in member.unasked.items():
                    self._groups.passed[Share(member.group, spot)].append(passed)

    # ---- inside

    def _count(self, entry: Entry) -> None:
        self._facts.counts[entry["f"]]["ok"] += 1

    def _of(self, entry: Entry) -> tuple[int, _Member]:
        process = self._facts.processes.number(entry["process"])
        member = self._members.get(process)
        if member is None:
            raise Malformed(f"{entry['process']} has not joined a group")
        return process, member

    def _spots(self, entry: Entry) -> list[int]:
        return [
            spot_of(self._facts, {"topic": topic, "partition": partition}) for topic, partition in entry["partitions"]
        ]

    def _is_backward(self, entry: Entry, member: _Member, what: str) -> None:
        message = f"{entry['process']} {what}"
        process = self._facts.processes.number(entry["process"])
        self._groups.backward.append(Backward(process, member.group, message, self._facts.line, entry["time"]))

    def _ask_past(self, member: _Member, spots: Iterable[int], at: float) -> None:
        """By something that began at `at`: where that is the very poll that handed it out, nobody has asked since."""
        for spot in spots:
            passed = member.unasked.get(spot)
            if passed is not None and passed.at < at:
                del member.unasked[spot]
                self._groups.passed[Share(member.group, spot)].append(passed._replace(at=at))

    def _hand(self, member: _Member, spot: int, ranges: list[tuple[int, int]], began: float | None) -> None:
        """`began`: of the poll that gave them out; what handlers do later is no proof of ownership."""
        share, holding = Share(member.group, spot), member.held.get(spot)
        for first, end in ranges:
            if end > FARTHEST:
                raise Malformed(f"records up to {end} were handed out, more than {FARTHEST}")
            self._groups.hand(share, first, end)
            if holding is not None:
                holding.read_to = max(holding.read_to, end)
        if holding is not None and began is not None:
            if holding.position == UNKNOWN_POSITION:
                holding.position = ranges[0][0]
            holding.proved = max(holding.proved, began)

    def _committing(self, entry: Entry, topic: str, partition: int, offset: int) -> Commit:
        process, member = self._of(entry)
        spot = spot_of(self._facts, {"topic": topic, "partition": partition})
        share, at = Share(member.group, spot), moment(entry, "at")
        offset = natural({"offset": offset}, "offset")
        holding = member.latest.get(spot)
        if holding is None:
            most, granted, first = UNKNOWN_POSITION, NEVER_GRANTED, offset
        else:
            most, granted = max(holding.read_to, holding.position), holding.granted
            first = max(holding.committed_to, holding.position, 0)
            holding.committed_to = max(holding.committed_to, offset)
        if first < min(offset, FARTHEST):
            self._groups.passed[share].append(Passed(at, first, min(offset, FARTHEST)))
        return Commit(share, process, entry["op"], offset, granted, spot in member.held, most, at)


def by_share(commits: Iterable[Commit]) -> dict[Share, list[Commit]]:
    """Give commits by what they are of."""
    found: dict[Share, list[Commit]] = defaultdict(list)
    for commit in commits:
        found[commit.share].append(commit)
    return found
