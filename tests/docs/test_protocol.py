"""docs/protocol.md says what the code does, and the conformance vectors hold for our own codec."""

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from penstock.protocol import limits
from penstock.protocol.batch import InvalidBatchError, header_of, parse, read, request_stamp
from penstock.protocol.compression import COMPRESSIONS, decompress
from penstock.protocol.keys import murmur2, partition_of
from penstock.protocol.reasons import Reason
from penstock.v1 import record_pb2 as pb

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()


def vectors(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((ROOT / "proto" / "conformance" / f"{name}.json").read_text())
    return loaded


def raw(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def test_the_table_of_reasons_is_the_codes() -> None:
    rows = [f"| `{r.name}` | `{r.code.name}` | {r.outcome.value} | {r.text} |" for r in Reason]
    table = TEXT.partition("<!-- reasons")[2].partition("<!-- end of reasons -->")[0].splitlines()[3:]
    assert table == rows, "docs/protocol.md should have:\n" + "\n".join(rows)


@pytest.mark.parametrize(
    "text",
    [
        f"| a gRPC message | {limits.MAX_MESSAGE_BYTES >> 20} MiB |",
        f"| a serialized `RecordBatch`, whatever the topic allows | {limits.MAX_BATCH_BYTES >> 20} MiB |",
        f"(`max_batch_bytes`) | {limits.DEFAULT_MAX_BATCH_BYTES >> 20} MiB |",
        f"| an uncompressed `RecordSet` | {limits.MAX_RECORDS_SIZE >> 20} MiB |",
        f"| the same in a compacted topic | {limits.MAX_COMPACTED_RECORDS_SIZE >> 20} MiB |",
        f"| records in a batch | {limits.MAX_BATCH_RECORDS:,} |",
        f"| characters of a topic name | {limits.MAX_TOPIC_NAME} |",
        f"| partitions of a topic | {limits.MAX_PARTITIONS_PER_TOPIC:,} |",
    ],
)
def test_the_limits_are_the_codes(text: str) -> None:
    assert text in TEXT


def test_the_canonical_header_is_as_documented() -> None:
    """Computes the CRC from the document's table alone."""
    layout = re.findall(r"^\| (\d+) \| (\d) \| (?:`(\w+)`|flags)", TEXT, re.MULTILINE)
    assert len(layout) == 9
    for vector in vectors("batches"):
        header, batch = dict(vector["header"]), pb.RecordBatch.FromString(raw(vector["batch"]) or b"")
        canonical = b""
        for at, size, name in layout:
            assert len(canonical) == int(at)
            value = header[name] if name else header["transactional"] + 2 * header["control"]
            canonical += value.to_bytes(int(size), "big", signed=value < 0)
        assert len(canonical) == struct.calcsize(">BIIqqqiiB")
        assert f"That is {len(canonical)} bytes in all" in TEXT
        assert google_crc32c.value(canonical + batch.records) == vector["crc32c"]


@pytest.mark.parametrize("vector", vectors("batches"), ids=lambda vector: vector["name"])
def test_batches_are_read(vector: dict[str, Any]) -> None:
    header, batch = parse(raw(vector["batch"]) or b"")
    assert header._asdict() == vector["header"]
    assert batch.crc32c == vector["crc32c"]
    assert decompress(batch.records, batch.compression, batch.records_size) == raw(vector["record_set"])
    for record, expected in zip(read(batch), vector["records"], strict=True):
        assert (record.offset_delta, record.timestamp_delta_ms) == (
            expected["offset_delta"],
            expected["timestamp_delta_ms"],
        )
        assert (record.key if record.HasField("key") else None) == raw(expected["key"])
        assert (record.value if record.HasField("value") else None) == raw(expected["value"])
        headers = [[one.key, one.value if one.HasField("value") else None] for one in record.headers]
        assert headers == [[name, raw(value)] for name, value in expected["headers"]]


def test_every_compression_has_a_vector() -> None:
    assert {vector["header"]["compression"] for vector in vectors("batches")} == set(COMPRESSIONS.values())


@pytest.mark.parametrize("vector", vectors("invalid_batches"), ids=lambda vector: vector["name"])
def test_invalid_batches_are_refused(vector: dict[str, Any]) -> None:
    payload = raw(vector["batch"]) or b""
    header_of(pb.RecordBatch.FromString(payload))  # the message itself is well formed
    with pytest.raises(InvalidBatchError) as caught:
        parse(payload)
    reason = "CORRUPT_BATCH" if type(caught.value).__name__ == "CorruptBatchError" else "INVALID_BATCH"
    assert reason == vector["reason"]


def test_keys_hash_as_documented_and_as_kafkas_client_hashes_them() -> None:
    for vector in vectors("partitions"):
        key = raw(vector["key"]) or b""
        assert murmur2(key) == vector["murmur2"]
        assert {str(n): partition_of(key, int(n)) for n in vector["partitions"]} == vector["partitions"]
    # From the tests of Kafka's Utils.murmur2, there as signed numbers.
    for key, signed in ((b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107)):
        assert murmur2(key) == signed % 2**32


def test_request_ids_are_stamped_as_documented() -> None:
    for vector in vectors("request_ids"):
        assert request_stamp(vector["request_id"])._asdict() | {"request_id": vector["request_id"]} == vector
