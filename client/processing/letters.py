"""The headers of a dead letter: where the record came from, and why it is there. Pure.

Added behind the record's own headers, which stay as they are. A record that fails a second time, read back from a
dead-letter topic, has them twice: the last ones are the latest.
"""

import traceback

from penstock.client.processing.policies import Failure
from penstock.client.records import Headers

PREFIX = "penstock.dead-letter."
MAX_MESSAGE_BYTES = 1024
MAX_STACK_BYTES = 4096


def headers_of(failure: Failure, group: str) -> Headers:
    """Give all headers of the dead letter. Numbers are decimal text, text is UTF-8."""
    record = failure.record
    told = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp-ms": str(record.timestamp_ms),
        "group": group,
        "stage": failure.stage,
        "attempts": str(failure.attempts),
        "exception": _name(failure.error),
        "message": _first(str(failure.error), MAX_MESSAGE_BYTES),
        "stack": _last("".join(traceback.format_exception(failure.error)), MAX_STACK_BYTES),
    }
    return [*record.headers, *((PREFIX + name, _encode(text)) for name, text in told.items())]


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _encode(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # a message may hold lone surrogates


def _first(text: str, size: int) -> str:
    """The beginning, at most so many bytes."""
    return _encode(text)[:size].decode(errors="ignore")


def _last(text: str, size: int) -> str:
    """The end: where it went wrong."""
    return _encode(text)[-size:].decode(errors="ignore")
