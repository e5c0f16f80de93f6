"""Lines of input to records, with the properties of Kafka's console producer. Pure.

Owns: parse.key, key.separator, parse.headers, headers.delimiter, headers.separator, headers.key.separator, null.marker.
A line is split at the first separator only; the rest belongs to the value, whatever it holds.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Headers = Sequence[tuple[str, bytes | None]]

DEFAULTS = {
    "parse.key": "false",
    "key.separator": "\t",
    "parse.headers": "false",
    "headers.delimiter": "\t",
    "headers.separator": ",",
    "headers.key.separator": ":",
    "null.marker": "",
}
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\0": "\0"}


class LineError(ValueError):
    """The line is not as the properties say; the message says how."""


class PropertyError(ValueError):
    """The property is unknown or its value is of no use."""


class Parsed(NamedTuple):
    """A record as the line gives it."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def read_properties(pairs: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    r"""Read KEY=VALUE pairs over the defaults in `known`. A value \t, \n or \0 is that character."""
    properties = dict(known)
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise PropertyError(f"{pair!r} is not KEY=VALUE")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise PropertyError(f"there is no property {name!r}; {hint}")
        properties[name] = _ESCAPES.get(value, value)
    return properties


def is_true(properties: Mapping[str, str], name: str) -> bool:
    """Give the truth of a property."""
    value = properties[name].lower()
    if value not in {"true", "false"}:
        raise PropertyError(f"{name} must be true or false, not {properties[name]!r}")
    return value == "true"


@dataclass(frozen=True, slots=True)
class LineParser:
    """Parses lines. Absent separators: the line is the value alone."""

    key_separator: bytes | None
    headers_delimiter: bytes | None = None
    headers_separator: bytes = b","
    headers_key_separator: bytes = b":"
    null_marker: bytes | None = None
    key: bytes | None = None
    """The key of all records, where lines have none."""

    @classmethod
    def of(cls, pairs: Sequence[str], key: str | None = None) -> "LineParser":
        """Make the parser that the properties describe. Raises PropertyError."""
        properties = read_properties(pairs, DEFAULTS)
        given = {pair.partition("=")[0] for pair in pairs}
        parse_key = is_true(properties, "parse.key")
        if "key.separator" in given and not parse_key:
            raise PropertyError("key.separator has no effect without parse.key=true")
        if key is not None and parse_key:
            raise PropertyError("--key and parse.key=true exclude each other")
        for name in ("key.separator", "headers.delimiter", "headers.separator", "headers.key.separator"):
            if not properties[name]:
                raise PropertyError(f"{name} must not be empty")
        raw = {name: value.encode() for name, value in properties.items()}
        return cls(
            raw["key.separator"] if parse_key else None,
            raw["headers.delimiter"] if is_true(properties, "parse.headers") else None,
            raw["headers.separator"],
            raw["headers.key.separator"],
            raw["null.marker"] or None,
            None if key is None else key.encode(),
        )

    def parse(self, line: bytes) -> Parsed:
        """Parse a line without its newline. Raises LineError."""
        headers: Headers = ()
        if self.headers_delimiter is not None:
            head, found, line = line.partition(self.headers_delimiter)
            if not found:
                raise LineError(f"has no headers delimiter {self.headers_delimiter.decode()!r}")
            headers = self._headers(head)
        key: bytes | None = self.key
        if self.key_separator is not None:
            key, found, line = line.partition(self.key_separator)
            if not found:
                raise LineError(f"has no key separator {self.key_separator.decode()!r}")
            key = self._or_null(key)
        return Parsed(key, self._or_null(line), headers)

    def _or_null(self, data: bytes) -> bytes | None:
        return None if self.null_marker is not None and data == self.null_marker else data

    def _headers(self, text: bytes) -> Headers:
        if not text or self._or_null(text) is None:
            return ()
        headers = []
        for header in text.split(self.headers_separator):
            name, found, value = header.partition(self.headers_key_separator)
            if not found:
                raise LineError(f"has a header without {self.headers_key_separator.decode()!r}")
            try:
                headers.append((name.decode(), self._or_null(value)))
            except UnicodeDecodeError as error:
                raise LineError("has a header whose name is not UTF-8") from error
        return headers
