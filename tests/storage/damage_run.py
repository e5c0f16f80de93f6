"""A program: damages copies of a store's data file, and reads each in a process of its own.

    python -m tests.storage.damage_run SEED COUNT KIND [compact]

`compact`: a compact copy takes the store's place first. Prints one JSON object: how many reads gave the right answers,
how many a DamagedStoreError, how many LMDB ended with the process, and each that did something else.
"""

import contextlib
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.protocol.batch import ProducerStamp
from penstock.storage import (
    Append,
    CheckpointHighWatermark,
    DamagedStoreError,
    Log,
    MoveStart,
    NotFormattedError,
    RecordStart,
    Store,
)
from penstock.storage.copying import compact
from penstock.storage.env import DATA_FILE, LOCK_FILE
from tests.storage.support import append, batch, done, formatted, key, new_log, options

PAGE = 4096
HEAD_BYTES = 152
"""The part of LMDB's two meta pages that is in use."""
MEMORY_BYTES = 2 * 1024**3
PATIENCE_S = 60
RIGHT, DAMAGED, WRONG, ERROR = range(4)
STOPPED = {signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV}
"""LMDB itself may end the process: at a page that is no leaf where one must be, at a length beyond the file's end."""
LOGS = 3
PRODUCERS = 500
"""Of one more log, which has no batches any more: enough for several pages under a branch."""


def fill(path: Path) -> None:
    """Some logs with batches within a page and over it, epochs, producers, times, a moved start."""
    store = Store.open(formatted(path), options())
    for number in range(LOGS):
        log, end = new_log(store, number), 0
        for index in range(60):
            size = (30, 900, 5_000, 40_000)[(index + number) % 4]
            stamp = ProducerStamp(index % 7 + 1, 0, index // 7 * 2)
            new = batch(end, [index * 10, index * 10 + 5], epoch=index // 10, value=bytes([index]) * size, stamp=stamp)
            append(store, log, new)
            end += 2
        done(store, CheckpointHighWatermark(log, 80), RecordStart(bytes([number]) * 16))
    done(store, MoveStart(log, 9, 20))
    crowd = [batch(at, stamp=ProducerStamp(at, 0, 0)) for at in range(PRODUCERS)]
    log = new_log(store, LOGS)
    done(store, Append(log, 0, tuple(crowd)), MoveStart(log, 0, PRODUCERS))
    store.close()


def answers(path: Path) -> str:
    """All that a store says, in one text."""
    with contextlib.closing(Store.open(path, options())) as store:
        said: list[object] = [store.identity, store.start_ids(), sorted(log.key for log in store.logs())]
        for number in range(LOGS):
            log = store.log(key(number))
            said += ["no log"] if log is None else _answers_of(log)
        log = store.log(key(LOGS))
        if log is not None:
            said += [log.producer(producer) for producer in range(PRODUCERS)]
            said.append(log.replica_seed())
    return repr(said)


def _answers_of(log: Log) -> list[object]:
    state = log.state
    said: list[object] = [state, log.epochs(), log.replica_seed()]
    said += [log.producer(producer) for producer in range(1, 10)]
    said += [log.find_timestamp(timestamp, state.log_end_offset) for timestamp in range(0, 700, 45)]
    said += [log.read(at, at + 1, 0) for at in range(state.log_start_offset, state.log_end_offset, 9)]
    said.append(log.read(state.log_start_offset, state.log_end_offset, 2**30))
    return said


def flip_bit(data: bytearray, chance: random.Random) -> str:
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    return f"bit in page {at // PAGE} at {at % PAGE}"


def flip_in_head(data: bytearray, chance: random.Random) -> str:
    """In one of LMDB's own two records of where everything begins."""
    at, bit = chance.randrange(2) * PAGE + chance.randrange(HEAD_BYTES), chance.randrange(8)
    data[at] ^= 1 << bit
    return f"bit {bit} in head {at // PAGE} at {at % PAGE}"


def flip_structure(data: bytearray, chance: random.Random) -> str:
    """Within the part of a page where LMDB keeps its own header and pointers."""
    at = chance.randrange(len(data) // PAGE) * PAGE + chance.randrange(64)
    data[at] ^= 1 << chance.randrange(8)
    return f"bit in page {at // PAGE} at {at % PAGE}"


def lead_astray(data: bytearray, chance: random.Random) -> str:
    """A bit of a key in a branch page: searches go to pages that are intact, but not those that hold the row."""
    branches = [at for at in range(0, len(data), PAGE) if struct.unpack_from("<H", data, at + 10)[0] == 1]
    page = chance.choice(branches)
    count = (struct.unpack_from("<H", data, page + 12)[0] - 16) // 2
    node = page + struct.unpack_from("<H", data, page + 16 + 2 * chance.randrange(count))[0]
    size = struct.unpack_from("<H", data, node + 6)[0]
    at = node + 8 + chance.randrange(max(1, size))
    data[at] ^= 1 << chance.randrange(8)
    return f"bit in a key of branch page {page // PAGE} at {at % PAGE}"


def zero_page(data: bytearray, chance: random.Random) -> str:
    page = chance.randrange(2, len(data) // PAGE)
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    return f"page {page} is zeros"


def lose_sector(data: bytearray, chance: random.Random) -> str:
    at = chance.randrange(2 * PAGE // 512, len(data) // 512) * 512
    data[at : at + 512] = chance.randbytes(512)
    return f"sector at page {at // PAGE}, {at % PAGE}, is noise"


def swap_pages(data: bytearray, chance: random.Random) -> str:
    """A write that went to the wrong place."""
    one, other = (chance.randrange(2, len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE] = data[other : other + PAGE]
    return f"page {one // PAGE} has the content of {other // PAGE}"


KINDS: dict[str, Callable[[bytearray, random.Random], str]] = {
    "bit": flip_bit,
    "head": flip_in_head,
    "structure": flip_structure,
    "astray": lead_astray,
    "zeros": zero_page,
    "sector": lose_sector,
    "misplaced": swap_pages,
}


def answers_of_copy(path: Path) -> str:
    """The same, after a compact copy took the store's place."""
    compact(path, options())
    return answers(path)


def in_a_process(path: Path, expected: str, ask: Callable[[Path], str] = answers) -> int:
    """The exit code of reading the store: one of the above, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = ERROR
        signal.alarm(PATIENCE_S)  # a loop among pages is a fault, too
        try:
            code = RIGHT if ask(path) == expected else WRONG
        except (DamagedStoreError, NotFormattedError) as error:
            code = DAMAGED if "format --join" in str(error) else ERROR
        except BaseException as error:  # noqa: BLE001  whatever it is, the parent must hear of it
            print(repr(error), file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(seed: int, count: int, kind: str, ask: Callable[[Path], str]) -> None:
    chance = random.Random(seed)
    tally = {"right": 0, "damaged": 0, "stopped": 0}
    bad = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store"
        fill(path)
        data = (path / DATA_FILE).read_bytes().rstrip(b"\0")
        data += bytes(-len(data) % PAGE)
        expected = answers(path)
        noted = (path / LOCK_FILE).read_bytes()
        for _ in range(count):
            copy = bytearray(data)
            what = KINDS[kind](copy, chance)
            (path / "lock.mdb").unlink(missing_ok=True)
            (path / LOCK_FILE).write_bytes(noted)
            with (path / DATA_FILE).open("r+b") as file:
                file.write(copy)
            code = in_a_process(path, expected, ask)
            if code in {RIGHT, DAMAGED}:
                tally["right" if code == RIGHT else "damaged"] += 1
            elif -code in STOPPED:
                tally["stopped"] += 1
            else:
                bad.append([what, {WRONG: "other data", ERROR: "other error"}.get(code, f"signal {-code}")])
    print(json.dumps({**tally, "bad": bad}))


if __name__ == "__main__":
    # A length read from a damaged page must not take the machine's memory with it.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], answers_of_copy if sys.argv[4:] == ["compact"] else answers)
