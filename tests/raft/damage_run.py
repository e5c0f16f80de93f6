"""A program: damages copies of a journal's data file, and starts on each in a process of its own.

    python -m tests.raft.damage_run SEED COUNT KIND

A start reads everything, commits some more, and reads everything again. Prints one JSON object: how many starts had the
right content, how many ended with a DamagedJournalError, how many LMDB ended with the process, and each that did
something else.
"""

import contextlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.raft.datafile import DATA_FILE, LOCK_FILE
from penstock.raft.errors import DamagedJournalError
from penstock.raft.journal import RaftJournal, StoredSnapshot
from tests.storage.damage_run import (
    DAMAGED,
    ERROR,
    KINDS,
    MEMORY_BYTES,
    PAGE,
    PATIENCE_S,
    RIGHT,
    STOPPED,
    WRONG,
)

MORE = 3


def fill(path: Path) -> None:
    """Entries within a page and over it, some replaced, some below a snapshot deleted; terms and votes."""
    RaftJournal.format(path, "c1", 1, founding=True)
    journal = RaftJournal.open(path)
    journal.found(b"members" * 40)
    for index in range(2, 400):
        journal.add(bytes([index % 251]) * (20, 300, 1_500, 9_000)[index % 4], index, index // 50)
        if index % 10 == 0:
            journal.setCurrentTerm(index // 50, index % 3 + 1)
            journal.sync()
        if index % 110 == 0:
            journal.store_snapshot(StoredSnapshot(index, index // 50, bytes([index % 256]) * 30_000), index - 80)
            journal.sync()
    journal.close()


def grow(journal: RaftJournal) -> None:
    """As a voter goes on: a term, some entries in place of the last ones."""
    for _ in range(MORE):
        journal.setCurrentTerm(journal.getCurrentTerm() + 1, 2)
        journal.sync()
        journal.deleteEntriesFrom(len(journal) - 2)
        for _ in range(4):
            journal.add(b"more" * 300, journal.last_index + 1, journal.getCurrentTerm())
        journal.sync()


def content(journal: RaftJournal) -> str:
    """All that a journal says, in one text."""
    state = (journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.getRaftCommitIndex(), journal.may_vote)
    return repr((journal.identity, state, journal.membership, journal.snapshot, journal[:]))


def start(path: Path) -> tuple[str, str]:
    """What the journal says at first, and after a restart on what `grow` added to it."""
    with contextlib.closing(RaftJournal.open(path)) as journal:
        first = content(journal)
        grow(journal)
    with contextlib.closing(RaftJournal.open(path)) as journal:
        return first, content(journal)


def cut(data: bytearray, chance: random.Random) -> str:
    """Anywhere within what is in use."""
    del data[chance.randrange(len(data)) :]
    return f"cut to {len(data)} bytes"


ALL_KINDS: dict[str, Callable[[bytearray, random.Random], str]] = {**KINDS, "cut": cut}


def in_a_process(path: Path, expected: tuple[str, str]) -> int:
    """The exit code of a start: one of those of the store's runs, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = ERROR
        signal.alarm(PATIENCE_S)  # a loop among pages is a fault, too
        try:
            code = RIGHT if start(path) == expected else WRONG
        except DamagedJournalError as error:
            code = DAMAGED if "format --join" in str(error) else ERROR
        except BaseException as error:  # noqa: BLE001  whatever it is, the parent must hear of it
            print(repr(error), file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(seed: int, count: int, kind: str) -> None:
    chance = random.Random(seed)
    tally = {"right": 0, "damaged": 0, "stopped": 0}
    bad = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "raft"
        fill(path)
        file = path / DATA_FILE
        length, mark = file.stat().st_size, (path / LOCK_FILE).read_bytes()
        data = file.read_bytes().rstrip(b"\0")
        data += bytes(-len(data) % PAGE)
        expected = start(path)
        for _ in range(count):
            copy = bytearray(data)
            what = ALL_KINDS[kind](copy, chance)
            (path / "lock.mdb").unlink(missing_ok=True)
            (path / LOCK_FILE).write_bytes(mark)
            file.write_bytes(copy)
            if kind != "cut":
                os.truncate(file, length)
            code = in_a_process(path, expected)
            if code in {RIGHT, DAMAGED}:
                tally["right" if code == RIGHT else "damaged"] += 1
            elif -code in STOPPED:
                tally["stopped"] += 1
            else:
                bad.append([what, {WRONG: "other content", ERROR: "other error"}.get(code, f"signal {-code}")])
    print(json.dumps({**tally, "bad": bad}))


if __name__ == "__main__":
    # A length read from a damaged page must not take the machine's memory with it.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
