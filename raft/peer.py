"""A node as pysyncobj knows it: its keys of dictionaries and sets.

The library's own class compares and hashes in Python, which was a tenth of all that consensus computes.
"""

from pysyncobj.node import Node


class PeerNode(int, Node):  # type: ignore[misc]  # the library has no types
    """A node's id that is also the library's Node."""

    id = int.real  # as Node has it
    __str__ = int.__repr__  # Node's returns the id itself

    def __init__(self, _node_id: int) -> None:
        """Node's would keep the id a second time."""
