"""Checks of settings, with errors that name the setting. Pure."""

from penstock.client.errors import InvalidRequestError
from penstock.protocol.reasons import Reason


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
