"""A line that no recorder wrote."""

import math
from collections.abc import Mapping
from typing import Any


class Malformed(Exception):  # noqa: N818  of a line; ingest makes a HistoryError with its number of it
    """The message says what is wrong with the line."""


def natural(fields: Mapping[str, Any], name: str) -> int:
    """Give a field that is a whole number from 0 on. Raises Malformed, KeyError."""
    found = fields[name]
    if type(found) is not int or found < 0:
        raise Malformed(f"{name} is {found!r}, not a whole number from 0 on")
    return found


def text(fields: Mapping[str, Any], name: str) -> str:
    """Give a field that is text. Raises Malformed, KeyError."""
    found = fields[name]
    if not isinstance(found, str):
        raise Malformed(f"{name} is {found!r}, not text")
    return found


def moment(fields: Mapping[str, Any], name: str) -> float:
    """Give a field that is a time. Raises Malformed, KeyError."""
    found = fields[name]
    if type(found) not in (int, float) or not math.isfinite(found):
        raise Malformed(f"{name} is {found!r}, not a time in seconds")
    return float(found)
