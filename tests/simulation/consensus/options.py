"""What a world is like: sizes, load, and how often which fault strikes. All of it follows from the seed.

A seed's profile is its last digit's: four in ten worlds are mixed, the others press on one thing each. A mutant names
the profile that shows it soonest; these are worlds of the ordinary runs.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.raft.journal import RaftJournal
from penstock.raft.machine import RaftMachine
from penstock.raft.outbox import Outbox

Weights = Mapping[str, int]

_MIXED: Weights = {
    "crash": 5,
    "crash_some": 2,
    "crash_all": 1,
    "start": 14,
    "bounce": 5,
    "power": 5,
    "fail": 3,
    "storm": 4,
    "cut": 5,
    "isolate": 4,
    "split": 3,
    "bridge": 1,
    "blink": 3,
    "heal": 12,
    "pause": 4,
    "slow": 2,
    "full": 2,
    "echo": 1,
    "transfer": 3,
    "wipe": 2,
    "found": 2,
}

PROFILES: dict[str, dict[str, Any]] = {
    "mixed": {"weights": _MIXED},
    "storms": {
        "weights": {"storm": 10, "power": 8, "bounce": 8, "start": 12, "cut": 2, "heal": 4, "transfer": 2},
        "faults_per_s": 2.0,
    },
    "disks": {
        "weights": {**_MIXED, "wipe": 20, "found": 12, "crash": 8, "storm": 8, "transfer": 5},
        "faults_per_s": 1.5,
        "observers": 0,
        "changes_per_s": 0.0,
    },
    "members": {
        "weights": {**_MIXED, "wipe": 0, "found": 0},
        "observers": 2,
        "changes_per_s": 1.5,
    },
    "links": {
        "weights": {"blink": 12, "full": 8, "cut": 10, "isolate": 8, "split": 3, "bridge": 3, "heal": 24, "bounce": 3},
        "faults_per_s": 2.0,
        "commands_per_s": 6.0,
    },
    "five": {
        "weights": {**_MIXED, "storm": 8, "split": 6, "bridge": 3, "echo": 8},
        "voters": 5,
        "observers": 0,
        "changes_per_s": 0.0,
    },
    "laggards": {
        "weights": {
            "isolate": 8,
            "crash": 6,
            "start": 12,
            "heal": 14,
            "blink": 10,
            "pause": 4,
            "power": 3,
            "bounce": 4,
        },
        "faults_per_s": 1.5,
        "commands_per_s": 6.0,
        "snapshot_entries": 5,
        "snapshot_tail": 0,
        "batch_entries": 3,
    },
}
_ROUND = ("mixed", "storms", "mixed", "disks", "mixed", "members", "mixed", "links", "five", "laggards")


def profile_of(seed: int) -> str:
    """The name of the seed's profile."""
    return _ROUND[seed % len(_ROUND)]


@dataclass(frozen=True)
class Options:
    """What a world is like. `of` derives them from the seed. Times are seconds."""

    weights: Weights
    voters: int = 3
    observers: int = 0
    seconds: float = 20.0
    snapshot_entries: int = 1_000_000
    snapshot_tail: int = 0
    batch_entries: int = 4096
    chunk_bytes: int = 64
    faults_per_s: float = 1.0
    commands_per_s: float = 4.0
    changes_per_s: float = 0.0
    reaction_s: float = 0.0005  # from what happens to the round that takes it in, with all that came meanwhile
    slow_network: bool = False
    codec: bool = False
    machine: type[RaftMachine] = RaftMachine  # mutants put others in place
    journal: type[RaftJournal] = RaftJournal
    outbox: type[Outbox] = Outbox
    lmdb: Path | None = None  # also keep each journal in LMDB, below this folder

    @classmethod
    def of(cls, seed: int, **given: Any) -> "Options":
        """The seed's, with what is given in place of what is drawn."""
        rng = random.Random(seed ^ 0x5EED)
        profile = dict(PROFILES[profile_of(seed)])
        observers = rng.random() < 0.2
        drawn: dict[str, Any] = {
            "voters": 5 if rng.random() < 0.04 else 3,
            "observers": 2 if observers else 0,
            "changes_per_s": 0.7 if observers else 0.0,
            "batch_entries": rng.choice((1, 3, 4096)),
            "slow_network": rng.random() < 0.5,
            "codec": rng.random() < 0.1,
            "faults_per_s": rng.choice((0.4, 1.0, 2.0)),
            "commands_per_s": rng.choice((2.0, 4.0, 8.0)),
            "reaction_s": rng.choice((0.001, 0.003, 0.006)),
        }
        if rng.random() < 0.6:
            drawn |= {"snapshot_entries": rng.choice((5, 12, 40)), "snapshot_tail": rng.choice((0, 3, 10))}
        return cls(**(drawn | profile | given))

    @property
    def nodes(self) -> int:
        """How many there are, voters and observers."""
        return self.voters + self.observers
