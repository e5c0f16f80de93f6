"""What the records of a bench hold, made before the load begins; and the stamp by which a reader knows their due time.

Values differ from each other within a batch, so that compression finds nothing in them unless it is meant to.
"""

import random
import struct

POOL_BYTES = 8 * 1024 * 1024
"""Of different values; no batch is larger than what compression looks back."""
MAX_VALUES = 1 << 16
_WORDS = ("order", "customer", "created", "shipped", "amount", "currency", "address", "pending", "total", "item")
_TEXT_BYTES = 1 << 18
_STAMP = struct.Struct("<8sq")
STAMP_BYTES = _STAMP.size


def make_values(size: int, *, compressible: bool, seed: int) -> list[bytes]:
    """Give different values of `size` bytes: random ones, or text of few words. The same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - data that compresses badly, no secret
    count = min(MAX_VALUES, max(2, POOL_BYTES // max(size, 1)))
    if not compressible:
        pool = rng.randbytes(count * size)
        return [pool[at : at + size] for at in range(0, count * size, size)] if size else [b""]
    text = " ".join(rng.choices(_WORDS, k=_TEXT_BYTES // 8)).encode()
    text *= size // len(text) + 2
    return [text[at : at + size] for at in (rng.randrange(_TEXT_BYTES // 2) for _ in range(min(count, 4096)))]


def make_keys(count: int) -> list[bytes]:
    """Give `count` different keys."""
    return [b"key-%d" % number for number in range(count)]


def stamp(run_id: bytes, due_ns: int) -> bytes:
    """Give the first bytes of a stamped value."""
    return _STAMP.pack(run_id, due_ns)


def due_ns_of(value: bytes, run_id: bytes) -> int | None:
    """When the record was due; None: it is not of this run."""
    if not value.startswith(run_id) or len(value) < STAMP_BYTES:
        return None
    due_ns: int = _STAMP.unpack_from(value)[1]
    return due_ns
