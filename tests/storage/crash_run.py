"""A program that is to be killed: commits rounds to a store, and prints each one once it is acknowledged.

python -m tests.storage.crash_run PATH
"""

import random
import sys
from pathlib import Path

from penstock.protocol.batch import ProducerStamp
from penstock.storage import Append, CheckpointHighWatermark, Committer, CreateLog, Log, Store, Write
from tests.storage.support import batch, key, options

LOGS = 5


def log_of(store: Store, number: int) -> Log:
    log = store.log(key(number))
    if log is None:
        (outcome,) = Committer(store).commit([CreateLog(key(number))])
        log = outcome.log
    assert log is not None
    return log


def main(path: Path) -> None:
    """Each round appends a batch to some logs, of a producer that numbers on."""
    store = Store.open(path, options())
    chance = random.Random()
    logs = [log_of(store, number) for number in range(LOGS)]
    committer = Committer(store)
    while True:
        writes: list[Write] = []
        for number in chance.sample(range(LOGS), chance.randrange(1, LOGS)):
            end = logs[number].state.log_end_offset
            size = chance.choice((10, 1_000, 20_000, 200_000))
            new = batch(end, [end], value=bytes([end % 251]) * size, stamp=ProducerStamp(number, 0, end))
            writes.append(Append(logs[number], 0, (new,)))
            writes.append(CheckpointHighWatermark(logs[number], max(0, end - 5)))
        assert all(outcome.error is None for outcome in committer.commit(writes))
        print(*(log.state.log_end_offset for log in logs), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
