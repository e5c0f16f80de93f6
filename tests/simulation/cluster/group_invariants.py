"""The invariants of consumer groups (DESIGN section 8, rules 20, 21, 31), each named after what it guards."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, MetadataImage
from penstock.storage import LogBatch
from tests.simulation.cluster.checks import Invariant, Truth, records_of
from tests.simulation.cluster.group import GROUP, Committed, Group, commits_of, group_of
from tests.simulation.cluster.history import Spot

if TYPE_CHECKING:
    from tests.simulation.cluster.machine import Machine


def owners(info: GroupInfo | None) -> Iterator[tuple[Spot, str, int]]:
    """Give partition, member and granted generation of all that is owned."""
    for member in () if info is None else info.members.values():
        for partition, granted in member.owned.items():
            yield Spot(*partition), member.member_id, granted


class OneOwnerAPartition(Invariant):
    """A partition is owned by one member; its former owner is gone, or has given it up and knows it (rule 21)."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        before, now = old.groups.get(GROUP), new.groups.get(GROUP)
        if before is now or before == now:  # equal after a snapshot
            return
        owned: dict[Spot, str] = {}
        for spot, member_id, _ in owners(now):
            if owned.setdefault(spot, member_id) != member_id:
                self.breach(f"{spot} is owned by {owned[spot]} and {member_id}")
        for spot, member_id, _ in owners(before):
            if owned.get(spot) != member_id and spot.topic_id in new.topics:
                self._check_former(group_of(self.checks), spot, member_id, owned.get(spot))

    def _check_former(self, group: Group, spot: Spot, member_id: str, owner: str | None) -> None:
        """Who lost the partition must not believe to have it."""
        for member in group.members:
            if member.believes(member_id, spot):
                self.breach(f"{spot} is {owner}'s now, {member_id} believes to own it")


class GrantsAreOnce(Invariant):
    """In a generation a partition is granted once; generations, epochs and grants never go back.

    A static member that comes back has what it had, in the place of its former self.
    """

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        before, now = old.groups.get(GROUP), new.groups.get(GROUP)
        if now is before or now == before or now is None:
            return
        if before is not None and (now.generation < before.generation or now.group_epoch <= before.group_epoch):
            text = f"from generation {before.generation}, epoch {before.group_epoch}"
            self.breach(f"{text} to {now.generation}, {now.group_epoch}")
        if before is None or now.generation > before.generation:
            self.checks.count("group: generations")
        former = {(spot, member_id): granted for spot, member_id, granted in owners(before)}
        for spot, member_id, granted in owners(now):
            if former.get((spot, member_id)) != granted:
                self._granted(now, spot, member_id, granted)

    def _granted(self, now: GroupInfo, spot: Spot, member_id: str, granted: int) -> None:
        group = group_of(self.checks)
        latest, holder = group.granted.get(spot, (0, ""))
        inherited = granted == latest and holder not in now.members
        if not inherited and not latest < granted <= now.generation:
            text = f"{spot} is granted to {member_id} in {granted} of {now.generation}, "
            self.breach(text + f"it was to {holder} in {latest}")
        group.note_grant(spot, granted, member_id)
        self.checks.count("group: grants")


class CommitsAreOfOwners(Invariant):
    """What is committed is by the partition's present owner: nothing from before another one's grant (rules 20, 31).

    It may be gone or fenced by then, as long as nobody else was granted the partition: a commit in flight comes before.
    """

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        for spot, commit in commits_in(self, truth, batch):
            if commit is not None and commit.member_id:
                granted, owner = group_of(self.checks).granted.get(spot, (0, ""))
                if commit.member_id != owner or commit.generation < granted:
                    self.breach(f"{commit} counts for {spot}, which was granted to {owner} in {granted}")


class CommitsNeverGoBack(Invariant):
    """Offsets and sequences rise, as no member seeks back and nobody resets: so later owners begin at or above.

    Told last of a batch: it notes what is committed.
    """

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        for spot, commit in commits_in(self, truth, batch):
            group = group_of(self.checks)
            known = group.commits.get(spot)
            if commit is None:
                if spot.topic_id in self.checks.image.topics:
                    self.breach(f"the commit of {spot} is deleted, it was {known}")
                group.note_commit(spot, None)
                continue
            if known is not None and commit.offset < known.offset and not self._begins_again(spot, known, commit):
                self.breach(f"{spot} went from {known} to {commit}")
            same = known is not None and commit.member_id == known.member_id
            if known is not None and same and 0 < commit.sequence < known.sequence:
                self.breach(f"{spot} went from {known} to {commit}")
            group.note_commit(spot, commit)
            self.checks.count("group: commits")

    def _begins_again(self, spot: Spot, known: Committed, commit: Committed) -> bool:
        """Whether the same member reads again what a late commit of its own was of."""
        tenure = group_of(self.checks).tenures.get((commit.member_id, spot))
        again = tenure is not None and tenure.is_continued and tenure.start <= commit.offset
        return again and commit.member_id == known.member_id


class NothingIsSkipped(Invariant):
    """A member commits at most what its application was given, and has asked past or committed itself."""

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        for spot, commit in commits_in(self, truth, batch):
            if commit is None or not commit.member_id:
                continue
            tenure = group_of(self.checks).tenures.get((commit.member_id, spot))
            if tenure is None or commit.offset > tenure.asked:
                self.breach(f"{commit} of {spot} is above what the application is done with: {tenure}")


def commits_in(invariant: Invariant, truth: Truth, batch: LogBatch) -> Iterator[tuple[Spot, Committed | None]]:
    """Give the group's commits in a batch, if it is one of __offsets."""
    topic = invariant.checks.image.topics.get(truth.key.topic_id)
    if topic is not None and topic.name == OFFSETS_TOPIC:
        yield from filter(None, map(commits_of, records_of(batch)))


GROUP_INVARIANTS: tuple[type[Invariant], ...] = (
    OneOwnerAPartition,
    GrantsAreOnce,
    CommitsAreOfOwners,
    NothingIsSkipped,
    CommitsNeverGoBack,
)
