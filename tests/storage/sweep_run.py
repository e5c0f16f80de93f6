"""A program that is to be killed: deletes dropped data chunk by chunk between appends, and prints a line after each.

It does one for each line of standard input, so that it never is done before it is killed.

python -m tests.storage.sweep_run PATH
"""

import sys
from pathlib import Path

from penstock.storage import Append, Committer, Store, commit
from tests.storage.support import batch, key, options

CHUNK_ROWS = 16
KEPT = 1
"""Number of the log that is appended to."""


def main(path: Path) -> None:
    commit.SWEEP_ROWS = CHUNK_ROWS
    store = Store.open(path, options())
    committer = Committer(store)
    log = store.log(key(KEPT))
    assert log is not None
    more = True
    while more and sys.stdin.readline():
        end = log.state.log_end_offset
        assert [outcome.error for outcome in committer.commit([Append(log, 0, (batch(end),))])] == [None]
        more = committer.sweep()
        print(log.state.log_end_offset, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
