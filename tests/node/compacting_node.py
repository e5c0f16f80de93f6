"""A program: penstockd whose copy of the store meets something.

python -m tests.node.compacting_node hang|fail|damage start --config FILE
"""

import sys
import threading

from penstock.node.main import main
from penstock.storage import StorageError, Store, copying
from penstock.storage.layout import damaged

HANGS = "the copy was made and waits"


def meet(what: str) -> None:
    """In the place of the check of the copy."""
    if what == "hang":
        print(HANGS, file=sys.stderr, flush=True)
        threading.Event().wait()
    raise damaged("a test says so") if what == "damage" else StorageError("a test says so")


if __name__ == "__main__":
    word = sys.argv.pop(1)

    def check_whole(store: Store) -> None:
        meet(word)

    copying.check_whole = check_whole  # type: ignore[attr-defined]  # where `copying` looks it up
    main()
