"""Seeded, deterministic simulation of consensus: the real RaftMachine and RaftJournal in a virtual world.

`python -m tests.simulation.consensus --seeds 0:1000` runs worlds; `--trace` prints one.
"""
