"""Records to bytes: Kafka's properties, JSON, TSV; nothing is lost that is not UTF-8."""

import json

import pytest

from penstock.client import Record
from penstock.client.cli.formats import Encoding, json_formatter, tsv_formatter, value_formatter
from penstock.client.cli.lines import PropertyError

RECORD = Record("orders", 1, 7, 1_700_000_000_000, b"k", b"v\t\\\n", (("h", b"1"), ("n", None)), 3)
BINARY = RECORD._replace(key=None, value=b"\xff\x00", headers=())
ALL = [f"print.{part}=true" for part in ("timestamp", "partition", "offset", "headers", "key")]


def test_the_value_alone_is_written_as_it_is() -> None:
    write = value_formatter([], Encoding.RAW)
    assert write(RECORD) == b"v\t\\\n\n"
    assert write(BINARY) == b"\xff\x00\n"
    assert write(RECORD._replace(value=None)) == b"null\n"


def test_parts_come_in_kafkas_order() -> None:
    write = value_formatter([*ALL, "key.separator=|"], Encoding.RAW)
    assert write(RECORD) == b"CreateTime:1700000000000|Partition:1|Offset:7|h:1,n:null|k|v\t\\\n\n"
    assert write(BINARY).startswith(b"CreateTime:1700000000000|Partition:1|Offset:7|NO_HEADERS|null|")


def test_other_properties() -> None:
    pairs = ["print.key=true", "print.value=false", r"line.separator=\0", "null.literal=~"]
    assert value_formatter(pairs, Encoding.RAW)(BINARY) == b"~\0"
    with pytest.raises(PropertyError, match=r"print\.key"):
        value_formatter(["print.keys=true"], Encoding.RAW)


@pytest.mark.parametrize(("encoding", "text"), [(Encoding.BASE64, b"/wA=\n"), (Encoding.HEX, b"ff00\n")])
def test_encodings(encoding: Encoding, text: bytes) -> None:
    assert value_formatter([], encoding)(BINARY) == text


def test_json_tells_text_binary_empty_and_absent_apart() -> None:
    document = json.loads(json_formatter(Encoding.RAW)(RECORD))
    assert document["key"] == "k"
    assert document["value"] == "v\t\\\n"
    assert document["headers"] == [{"key": "h", "value": "1"}, {"key": "n", "value": None}]
    assert (document["topic"], document["partition"], document["offset"]) == ("orders", 1, 7)
    binary = json.loads(json_formatter(Encoding.RAW)(BINARY))
    assert binary["key"] is None
    assert binary["value_base64"] == "/wA="
    assert "value" not in binary
    assert json.loads(json_formatter(Encoding.HEX)(BINARY))["value_hex"] == "ff00"
    assert json.loads(json_formatter(Encoding.BASE64)(RECORD))["key_base64"] == "aw=="


def test_tsv_keeps_one_line_a_record() -> None:
    assert tsv_formatter(Encoding.RAW)(RECORD) == b"orders\t1\t7\t1700000000000\tk\tv\\t\\\\\\n\th:1,n:\\N\n"
    assert tsv_formatter(Encoding.RAW)(BINARY) == b"orders\t1\t7\t1700000000000\t\\N\t\xff\x00\t\n"
