"""Answers of leaders to the question where a partition ends, or begins."""

from typing import NamedTuple


class End(NamedTuple):
    """One answer."""

    process: int
    spot: int
    isolation: int
    offset: int
    epoch: int
    """The leader's; -1: not said."""
    began: float
    ended: float
    line: int
