"""Simulated disks: one in memory, one over the real store, held to the same contract by one suite."""

from tests.simulation.store.disk import Disk, Fault, PowerLoss
from tests.simulation.store.lmdb_disk import LmdbDisk
from tests.simulation.store.memory_disk import MemoryDisk

__all__ = ["Disk", "Fault", "LmdbDisk", "MemoryDisk", "PowerLoss"]
