"""Anomalies of the metadata as nodes show them."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.metadata import Disagreement, View
from penstock.chaos.checker.verdict import Anomaly, Operation


class ElectionSafety:
    """Two nodes lead one partition in one leader epoch, or the leader epoch of a partition goes down.

    The former over all views of all nodes, by topic id; the latter over the views of one node that follow each other
    without overlap, the later one not of a lower metadata version. Raft's Election Safety; KIP-101.
    """

    kind: ClassVar[str] = "election-safety"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return _anomalies(self.kind, facts.metadata.two_leaders + facts.metadata.epochs_back)


class MetadataDivergence:
    """Two views have one metadata version and two hashes: two images of what one log decided (Raft's State Machine
    Safety).
    """

    kind: ClassVar[str] = "metadata-divergence"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        return _anomalies(self.kind, facts.metadata.diverged)


class MetadataBack:
    """A node's metadata version went down between two views that do not overlap, and it was not restarted meanwhile.

    A restarted node begins with what its journal holds, which may be older than what it had learned. It may have been
    restarted where a fault that hit it was there at some time from the former view to the later one.
    """

    kind: ClassVar[str] = "metadata-back"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        metadata = facts.metadata
        return _anomalies(
            self.kind,
            (
                one
                for one in metadata.versions_back
                if not metadata.may_have_restarted(one.later.node, one.former.began, one.later.ended)
            ),
        )


def _anomalies(kind: str, found: Iterable[Disagreement]) -> Iterator[Anomaly]:
    for one in found:
        yield Anomaly(kind, one.what, one.topic, one.partition, (_operation(one.former), _operation(one.later)))


def _operation(view: View) -> Operation:
    return Operation(f"line {view.line}: view", view.began, view.ended)
