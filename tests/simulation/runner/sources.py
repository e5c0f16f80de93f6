"""Which code a result is of."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.simulation.runner.pool import ROOT
from tests.simulation.runner.worlds import KINDS, Kind

PRODUCT = ("proto", "storage", "raft", "client", "node")
SIMULATION = "tests/simulation"
_LIBRARIES = ("pysyncobj", "grpcio", "protobuf", "lmdb", "cramjam", "google-crc32c")
_FRESH_RANGES = 1000
_FRESH_SEEDS = 1_000_000


def version_of(kind: Kind) -> str:
    """A hash over all that the worlds' outcome may depend on: product, simulation, interpreter, libraries.

    Of worlds that are given by their module's dotted name only that module is taken: they are the tests' own.
    """
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    return hash_of(ROOT, files_of(kind), [platform.python_version(), *libraries])


def files_of(kind: Kind) -> list[Path]:
    """All sources that such worlds consist of."""
    return list(_product(ROOT) if kind.name in KINDS else _module(kind.module))


def hash_of(root: Path, files: Iterable[Path], facts: Sequence[str]) -> str:
    """Hash files, by their paths below root, and facts."""
    digest = hashlib.sha256("\n".join(facts).encode())
    for path in sorted(set(files)):
        data = path.read_bytes()
        digest.update(f"\n{path.relative_to(root)} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def commit() -> str:
    """The commit, for people to read."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def fresh_seeds(version: str, count: int) -> range:
    """Seeds of a code version's own: the same range again until the code changes.

    The base is 1,000,000 times a number from 1 to 1000 that the version gives.
    """
    base = (1 + int(version, 16) % _FRESH_RANGES) * _FRESH_SEEDS
    return range(base, base + count)


def _product(root: Path) -> Iterator[Path]:
    for folder in PRODUCT:
        yield from (root / folder).rglob("*.py")
    for path in (root / SIMULATION).rglob("*.py"):
        parts = path.relative_to(root / SIMULATION).parts
        if parts[0] != "runner" and not path.name.startswith("test_"):
            yield path


def _module(module: str) -> Iterator[Path]:
    found = importlib.util.find_spec(module)
    if found is not None and found.origin is not None:
        yield Path(found.origin)
