"""Write the conformance vectors anew: batches.json, invalid_batches.json, partitions.json, request_ids.json.

They are fixed points for client authors: run this when the protocol gains something, never to make a test pass.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.protocol.batch import NOT_STAMPED, NewRecord, ProducerStamp, build, header_of, request_stamp
from penstock.protocol.compression import COMPRESSIONS, decompress
from penstock.protocol.keys import murmur2, partition_of
from penstock.v1 import record_pb2 as pb

HERE = Path(__file__).parent
BASE_MS = 1_700_000_000_000
ORDERS = [NewRecord(b"key-%d" % (i % 3), b"order %d of some length, " % i * 4, BASE_MS + i) for i in range(20)]
EDGES = [
    NewRecord(None, None, BASE_MS),
    NewRecord(b"", b"", BASE_MS - 5, [("", b""), ("repeated", b"1"), ("repeated", None)]),
    NewRecord(bytes(range(256)), b"\x00\xff", BASE_MS + 10**9, [("naïve", "höher".encode())]),
]
BATCHES: dict[str, tuple[list[NewRecord], str, ProducerStamp]] = {
    **{f"orders, {name}": (ORDERS, name, NOT_STAMPED) for name in COMPRESSIONS},
    "idempotent producer": (ORDERS[:2], "none", ProducerStamp(2**62, 32767, 2**31 - 1)),
    "first batch of producer 0": (ORDERS[:1], "none", ProducerStamp(0, 0, 0)),
    "absent, empty and binary fields": (EDGES, "none", NOT_STAMPED),
    "before 1970": ([NewRecord(b"k", b"v", -62_135_596_800_000)], "none", NOT_STAMPED),
}


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def batch_vector(name: str, batch: pb.RecordBatch) -> dict[str, Any]:
    """Describe one batch: its bytes, its header, its canonical header, its records."""
    record_set = decompress(batch.records, batch.compression, batch.records_size)
    records = []
    for record in pb.RecordSet.FromString(record_set).records:
        headers = [[h.key, _base64(h.value if h.HasField("value") else None)] for h in record.headers]
        records.append(
            {
                "offset_delta": record.offset_delta,
                "timestamp_delta_ms": record.timestamp_delta_ms,
                "key": _base64(record.key if record.HasField("key") else None),
                "value": _base64(record.value if record.HasField("value") else None),
                "headers": headers,
            }
        )
    return {
        "name": name,
        "batch": _base64(batch.SerializeToString(deterministic=True)),
        "header": header_of(batch)._asdict(),
        "crc32c": batch.crc32c,
        "record_set": _base64(record_set),
        "records": records,
    }


def _changed(change: Callable[[pb.RecordBatch], None]) -> pb.RecordBatch:
    batch = build(ORDERS[:3], pb.COMPRESSION_GZIP, ProducerStamp(7, 0, 3))
    change(batch)
    return batch


def _flip(batch: pb.RecordBatch) -> None:
    batch.records = batch.records[:-1] + bytes([batch.records[-1] ^ 1])


def invalid_batches() -> dict[str, tuple[str, pb.RecordBatch]]:
    """Give batches that must be refused, by name, with the reason."""
    return {
        "a bit of the records": ("CORRUPT_BATCH", _changed(_flip)),
        "a bit of the CRC": ("CORRUPT_BATCH", _changed(lambda b: setattr(b, "crc32c", b.crc32c ^ 1))),
        "another sequence": ("CORRUPT_BATCH", _changed(lambda b: setattr(b, "base_sequence", 4))),
        "another timestamp": ("CORRUPT_BATCH", _changed(lambda b: setattr(b, "max_timestamp_ms", 1))),
        "compression unspecified": ("INVALID_BATCH", _changed(lambda b: b.ClearField("compression"))),
        "no records": ("INVALID_BATCH", _changed(lambda b: b.ClearField("record_count"))),
        "half a producer stamp": ("INVALID_BATCH", _changed(lambda b: b.ClearField("base_sequence"))),
        "negative sequence": ("INVALID_BATCH", _changed(lambda b: setattr(b, "base_sequence", -1))),
        "epoch above 32767": ("INVALID_BATCH", _changed(lambda b: setattr(b, "producer_epoch", 32768))),
    }


def partitions() -> list[dict[str, Any]]:
    """Give keys with their hash and their partition among several numbers of partitions."""
    keys = [b"", b"a", b"ab", b"abc", b"abcd", b"21", b"foobar", b"order-4711", "grün".encode(), b"\xff" * 7]
    keys.append(bytes(range(64)))
    return [
        {
            "key": _base64(key),
            "murmur2": murmur2(key),
            "partitions": {str(count): partition_of(key, count) for count in (1, 2, 3, 12, 100, 10_000)},
        }
        for key in keys
    ]


def main() -> None:
    """Write the files."""
    built = {name: build(records, COMPRESSIONS[codec], stamp) for name, (records, codec, stamp) in BATCHES.items()}
    refused = [
        {"name": name, "reason": reason, "batch": _base64(batch.SerializeToString(deterministic=True))}
        for name, (reason, batch) in invalid_batches().items()
    ]
    ids = ["1", "order-4711", "00000000-0000-0000-0000-000000000000", "grün"]
    files = {
        "batches": [batch_vector(name, batch) for name, batch in built.items()],
        "invalid_batches": refused,
        "partitions": partitions(),
        "request_ids": [{"request_id": one, **request_stamp(one)._asdict()} for one in ids],
    }
    for name, vectors in files.items():
        (HERE / f"{name}.json").write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
