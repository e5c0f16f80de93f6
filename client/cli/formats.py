"""Records to bytes for standard output, with the properties of Kafka's console consumer. Pure and binary-safe.

Owns: print.key, print.value, print.timestamp, print.partition, print.offset, print.headers, key.separator,
line.separator, headers.separator, null.literal; the JSON form and the TSV form of a record.
"""

import base64
import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from penstock.client import Record
from penstock.client.cli.lines import is_true, read_properties

DEFAULTS = {
    "print.timestamp": "false",
    "print.partition": "false",
    "print.offset": "false",
    "print.headers": "false",
    "print.key": "false",
    "print.value": "true",
    "key.separator": "\t",
    "line.separator": "\n",
    "headers.separator": ",",
    "null.literal": "null",
}
TSV_COLUMNS = ("topic", "partition", "offset", "timestamp_ms", "key", "value", "headers")

Formatter: TypeAlias = Callable[[Record], bytes]


class Encoding(StrEnum):
    """How keys and values are written."""

    RAW = "raw"
    """As they are; in JSON as text where they are UTF-8, else in base64 under a name of its own."""
    BASE64 = "base64"
    HEX = "hex"


def encoded(data: bytes, encoding: Encoding) -> bytes:
    """Write key or value in an encoding."""
    if encoding is Encoding.RAW:
        return data
    return base64.b64encode(data) if encoding is Encoding.BASE64 else data.hex().encode()


def value_formatter(pairs: Sequence[str], encoding: Encoding) -> Formatter:
    """Make the formatter of Kafka's console consumer: the parts asked for, in its order. Raises PropertyError."""
    properties = read_properties(pairs, DEFAULTS)
    null, end = properties["null.literal"].encode(), properties["line.separator"].encode()
    between = properties["headers.separator"].encode()

    def cell(data: bytes | None) -> bytes:
        return null if data is None else encoded(data, encoding)

    def headers(record: Record) -> bytes:
        return between.join(name.encode() + b":" + cell(value) for name, value in record.headers) or b"NO_HEADERS"

    parts: dict[str, Formatter] = {
        "print.timestamp": lambda record: b"CreateTime:%d" % record.timestamp_ms,
        "print.partition": lambda record: b"Partition:%d" % record.partition,
        "print.offset": lambda record: b"Offset:%d" % record.offset,
        "print.headers": headers,
        "print.key": lambda record: cell(record.key),
        "print.value": lambda record: cell(record.value),
    }
    chosen = [part for name, part in parts.items() if is_true(properties, name)]
    separator = properties["key.separator"].encode()
    return lambda record: separator.join([part(record) for part in chosen]) + end


def json_formatter(encoding: Encoding) -> Formatter:
    """Make the formatter that writes one JSON object a record."""

    def write(record: Record) -> bytes:
        document: dict[str, Any] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            **_json_field("key", record.key, encoding),
            **_json_field("value", record.value, encoding),
            "headers": [{"key": name, **_json_field("value", value, encoding)} for name, value in record.headers],
        }
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"

    return write


def _json_field(name: str, data: bytes | None, encoding: Encoding) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    if encoding is Encoding.HEX:
        return {f"{name}_hex": data.hex()}
    if encoding is Encoding.RAW:
        try:
            return {name: data.decode()}
        except UnicodeDecodeError:
            pass
    return {f"{name}_base64": base64.b64encode(data).decode()}


def tsv_formatter(encoding: Encoding) -> Formatter:
    r"""Make the formatter of one line a record: TSV_COLUMNS; \N is an absent key or value, bytes are escaped."""

    def cell(data: bytes | None) -> bytes:
        return rb"\N" if data is None else _escaped(encoded(data, encoding))

    def write(record: Record) -> bytes:
        place = f"{record.topic}\t{record.partition}\t{record.offset}\t{record.timestamp_ms}".encode()
        headers = b",".join(_escaped(name.encode()) + b":" + cell(value) for name, value in record.headers)
        return b"\t".join((place, cell(record.key), cell(record.value), headers)) + b"\n"

    return write


def _escaped(data: bytes) -> bytes:
    return data.replace(b"\\", rb"\\").replace(b"\t", rb"\t").replace(b"\n", rb"\n").replace(b"\r", rb"\r")
