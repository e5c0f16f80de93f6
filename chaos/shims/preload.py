"""What is loaded into a node's process (LD_PRELOAD): the wrapper that starts it so, and the handles on what is loaded.

Owns the environment of the node's start. Libraries are loaded in this order: the failing disk, the clock.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Preload:
    """What one node is started with."""

    wrapper: tuple[str, ...] = ()
    """Program and arguments before the server's own; empty: nothing is loaded."""


@dataclass(frozen=True, slots=True)
class Preloads:
    """What all nodes are started with."""

    def make(self, folder: Path) -> Preload:
        """Make what one node needs, in a folder of its own."""
        del folder
        return Preload()


NOTHING = Preloads()
