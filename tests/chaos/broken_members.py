"""The nursery of members, with deliberate bugs in their client: python -m tests.chaos.broken_members BUG… -- FD"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from penstock.chaos.member import nursery
from penstock.client.group.member import MemberCore
from penstock.client.group.positions import Positions
from penstock.client.processing.run import Processing
from penstock.client.records import CommitPoint, TopicPartition
from tests.chaos.broken_dropping import Bug, put

NEVER_MS = 1 << 60
ROOT = Path(__file__).parents[2]


@contextmanager
def _no_session() -> Iterator[None]:
    """Neither of the two places where a member looks at the time."""
    with (
        put(MemberCore, "_check_session", lambda _self, _now_ms: None),
        put(MemberCore, "valid_until_ms", property(lambda _self: NEVER_MS)),
    ):
        yield


def _all_that_was_handed_out(
    self: Positions, partitions: Iterable[TopicPartition] | None = None
) -> dict[TopicPartition, CommitPoint]:
    return self.handed_out(partitions)


async def _waits_for_nobody(self: Processing, partitions: Sequence[TopicPartition]) -> None:
    self._core.cut(partitions)


BUGS: Mapping[str, Bug] = {
    "reads on after its session": Bug(
        "a member that was frozen for longer than its session gives out what it had fetched",
        _no_session,
    ),
    "commits what was only handed out": Bug(
        "by itself it commits what was not asked past", partial(put, Positions, "asked_past", _all_that_was_handed_out)
    ),
    "gives up what is being handled": Bug(
        "process() gives a partition up without waiting for its handlers",
        partial(put, Processing, "_drained", _waits_for_nobody),
    ),
}


def program(names: Sequence[str]) -> tuple[str, ...]:
    """Give the command that starts the nursery with these bugs."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.chaos.broken_members import main; main()"
    return sys.executable, "-P", "-c", code, *names, "--"


def main() -> None:
    """Break the code, then be the nursery as ever."""
    mark = sys.argv.index("--")
    with ExitStack() as broken:
        for name in sys.argv[1:mark]:
            broken.enter_context(BUGS[name].apply())
        sys.argv = ["nursery", *sys.argv[mark + 1 :]]
        nursery.main()


if __name__ == "__main__":
    main()
