"""What was run already: a file of JSON lines, one a range of seeds, only ever appended to.

A line counts for a run only if it is of the same worlds and the same code. A line that a killed runner left
unfinished is skipped.
"""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.simulation.runner.worker import Report

SAMPLE = 20
"""Of every so many seeds one's hash is noted, to be compared with that of a second run."""


@dataclass
class Tally:
    """What a range of seeds came to. Tallies of parts add up to that of the whole, in any order."""

    worlds: int = 0
    events: int = 0
    cpu_s: float = 0.0
    digest: int = 0
    """Over the hashes of all worlds; independent of their order."""
    failures: dict[int, str] = field(default_factory=dict)
    samples: dict[int, int] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)

    def count(self, report: Report) -> None:
        """Add one world."""
        self.worlds += 1
        self.events += report.events
        self._sum(report.facts)
        self.cpu_s = round(self.cpu_s + report.cpu_s, 5)
        self.digest = (self.digest + zlib.crc32(f"{report.seed} {report.hash}".encode())) % (1 << 32)
        if report.failure is not None:
            self.failures[report.seed] = report.failure
        elif report.seed % SAMPLE == 0:
            self.samples[report.seed] = report.hash

    def add(self, other: "Tally") -> None:
        """Add another tally."""
        self.worlds += other.worlds
        self.events += other.events
        self._sum(other.facts)
        self.cpu_s = round(self.cpu_s + other.cpu_s, 5)
        self.digest = (self.digest + other.digest) % (1 << 32)
        self.failures |= other.failures
        self.samples |= other.samples

    def _sum(self, facts: Mapping[str, int]) -> None:
        for name, number in facts.items():
            self.facts[name] = self.facts.get(name, 0) + number

    @property
    def rate(self) -> float:
        """Worlds a minute of CPU time."""
        return self.worlds / self.cpu_s * 60 if self.cpu_s else 0.0


@dataclass(frozen=True)
class Chunk:
    """A finished range of seeds."""

    first: int
    stop: int
    tally: Tally


class Results:
    """The file, as seen by a run of one sort of worlds on one version of the code."""

    def __init__(self, path: Path, world: str, version: str, commit: str = "") -> None:
        self.path = path
        self._key = {"world": world, "version": version, "commit": commit}

    def add(self, chunk: Chunk) -> None:
        """Note a finished range, with one write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(self._key | {"first": chunk.first, "stop": chunk.stop} | asdict(chunk.tally))
        with self.path.open("ab") as file:
            # An unfinished line before it ends here.
            file.write(f"\n{line}\n".encode() if self._is_torn() else f"{line}\n".encode())

    def chunks(self) -> Iterator[Chunk]:
        """Give all that is noted for these worlds and this code."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                noted = json.loads(line)
            except ValueError:
                continue
            if all(noted.get(name) == self._key[name] for name in ("world", "version")):
                yield Chunk(noted["first"], noted["stop"], _tally_of(noted))

    def _is_torn(self) -> bool:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _tally_of(noted: dict[str, object]) -> Tally:
    tally = Tally(**{name: noted[name] for name in Tally.__dataclass_fields__})  # type: ignore[arg-type]  # as written by `add`
    tally.failures = {int(seed): failure for seed, failure in tally.failures.items()}
    tally.samples = {int(seed): code for seed, code in tally.samples.items()}
    return tally


def split(seeds: range, chunks: Iterable[Chunk]) -> tuple[Tally, list[range]]:
    """Tell what is done of a range of seeds and what is left: of chunks that overlap only one counts."""
    done, left, at = Tally(), [], seeds.start
    for chunk in sorted(chunks, key=lambda chunk: (chunk.first, -chunk.stop)):
        if at <= chunk.first < chunk.stop <= seeds.stop:
            if at < chunk.first:
                left.append(range(at, chunk.first))
            done.add(chunk.tally)
            at = chunk.stop
    if at < seeds.stop:
        left.append(range(at, seeds.stop))
    return done, left
