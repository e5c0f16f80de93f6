"""`penstockd` with deliberate bugs of `make mutants` built in: python -m tests.chaos.broken_node MUTANT… -- start …"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from unittest import mock

from penstock.node import main as penstockd
from penstock.raft import cluster, journal
from tests.chaos import broken_dropping, broken_groups
from tests.simulation.cluster import mutants as whole
from tests.simulation.consensus import mutants as consensus

PLACES: Mapping[str, tuple[object, str]] = {
    "machine": (cluster, "RaftMachine"),
    "outbox": (cluster, "Outbox"),
    "journal": (journal, "RaftJournal"),
}
"""Where a node takes the class from that a mutant of consensus replaces."""


@contextmanager
def _replace(mutant: consensus.Mutant) -> Iterator[None]:
    with ExitStack() as broken:
        for what, kind in mutant.options.items():
            owner, name = PLACES[what]
            broken.enter_context(mock.patch.object(owner, name, kind))
        yield


BUGS = {**broken_dropping.BUGS, **broken_groups.BUGS}
BREAKS: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    **{mutant.name: partial(_replace, mutant) for mutant in consensus.MUTANTS},
    **{mutant.name: mutant.apply for mutant in whole.MUTANTS},
    **{name: bug.apply for name, bug in BUGS.items()},
}
"""All that are built into a whole node or client: the code is broken while the context lasts."""

WHAT: Mapping[str, str] = {
    **{mutant.name: mutant.what for mutant in consensus.MUTANTS},
    **{mutant.name: mutant.what for mutant in whole.MUTANTS},
    **{name: bug.what for name, bug in BUGS.items()},
}
"""What is wrong then."""


def main() -> None:
    """Break the code, then run the server as ever."""
    mark = sys.argv.index("--")
    with ExitStack() as broken:
        for name in sys.argv[1:mark]:
            broken.enter_context(BREAKS[name]())
        sys.argv = ["penstockd", *sys.argv[mark + 1 :]]
        penstockd.main()


if __name__ == "__main__":
    main()
