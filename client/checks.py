"""Checks of settings, with errors that name the setting. Pure."""

from penstock.client.errors import InvalidRequestError
from penstock.client.records import CommitPoint
from penstock.protocol.reasons import Reason

MAX_OFFSET = (1 << 63) - 1
MAX_EPOCH = (1 << 31) - 1


def invalid(message: str) -> InvalidRequestError:
    """Make the error of a setting that cannot work."""
    return InvalidRequestError(Reason.INVALID_ARGUMENT, message)


def one_of(name: str, value: object, allowed: "dict[str, object] | tuple[str, ...] | object") -> None:
    """Refuse what is not among the names."""
    names = tuple(allowed) if isinstance(allowed, (dict, tuple)) else ()
    if value not in names:
        raise invalid(f"{name} is {value!r}, not one of {', '.join(names)}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Refuse what is out of its range."""
    if not low <= value <= high:
        raise invalid(f"{name} is {value}, not between {low} and {high}")


def commit_point(at: int | CommitPoint) -> CommitPoint:
    """Make the point of what an application gives, and refuse what no message can carry."""
    point = at if isinstance(at, CommitPoint) else CommitPoint(at)
    if not _is_number(point.offset, MAX_OFFSET):
        raise invalid(f"an offset is an integer, 0 or more, and below 2**63; not {point.offset!r}")
    if point.leader_epoch is not None and not _is_number(point.leader_epoch, MAX_EPOCH):
        raise invalid(f"a leader epoch is an integer, 0 or more, and below 2**31; not {point.leader_epoch!r}")
    if not _is_text(point.metadata):
        raise invalid(f"the metadata of an offset is text, not {point.metadata!r}")
    return point


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or not value)
    except UnicodeEncodeError:  # half of a character
        return False
