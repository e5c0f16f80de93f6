"""Times and durations as people write and read them. Pure."""

from datetime import UTC, datetime, timedelta

import typer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_MS = 1_000
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", _SECOND_MS))


def parse_time(text: str, option: str) -> int:
    """Read ms since 1970, or ISO 8601; without an offset it is UTC. `option` is named in the error."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "ms since 1970 or like 2026-01-31T12:00:00Z"
        raise typer.BadParameter(f"{text!r} is not {hint}", param_hint=option) from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def time_text(ms: int) -> str:
    """Write a time in UTC, to the millisecond, as `parse_time` reads it."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def duration_text(ms: int) -> str:
    """Write a duration in the largest unit that it fills: 850 ms, 12.3 s, 4.0 min."""
    for unit, size in _UNITS:
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms} ms"
