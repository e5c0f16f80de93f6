"""Compression of record sets, by one library (cramjam), bounded by the size that the batch states."""

from collections.abc import Callable

import cramjam

from penstock.v1 import record_pb2 as pb

COMPRESSIONS: dict[str, "pb.Compression.ValueType"] = {
    "none": pb.COMPRESSION_NONE,
    "gzip": pb.COMPRESSION_GZIP,
    "snappy": pb.COMPRESSION_SNAPPY,
    "lz4": pb.COMPRESSION_LZ4,
    "zstd": pb.COMPRESSION_ZSTD,
}
"""Names of the compressions, as users write them."""

_COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    pb.COMPRESSION_NONE: lambda data: data,
    pb.COMPRESSION_GZIP: lambda data: bytes(cramjam.gzip.compress(data)),
    pb.COMPRESSION_SNAPPY: lambda data: bytes(cramjam.snappy.compress_raw(data)),
    pb.COMPRESSION_LZ4: lambda data: bytes(cramjam.lz4.compress(data)),
    pb.COMPRESSION_ZSTD: lambda data: bytes(cramjam.zstd.compress(data)),
}
_DECOMPRESS_INTO: dict[int, Callable[[bytes, bytearray], int]] = {
    pb.COMPRESSION_GZIP: cramjam.gzip.decompress_into,
    pb.COMPRESSION_SNAPPY: cramjam.snappy.decompress_raw_into,
    pb.COMPRESSION_LZ4: cramjam.lz4.decompress_into,
    pb.COMPRESSION_ZSTD: cramjam.zstd.decompress_into,
}


class DecompressionError(ValueError):
    """The data does not decompress to the size that was stated for it."""


def compress(data: bytes, compression: int) -> bytes:
    """Compress `data`. Raises KeyError for a compression that is not one of COMPRESSIONS."""
    return _COMPRESS[compression](data)


def decompress(data: bytes, compression: int, size: int) -> bytes:
    """Decompress `data`, which must come to exactly `size` bytes; never allocates more than that.

    Raises DecompressionError when it does not, KeyError for a compression that is not one of COMPRESSIONS.
    """
    if compression == pb.COMPRESSION_NONE:
        if len(data) != size:
            raise DecompressionError(f"records are {len(data)} bytes, the batch states {size}")
        return data
    target = bytearray(size)
    try:
        length = _DECOMPRESS_INTO[compression](data, target)
    except cramjam.DecompressionError as error:
        raise DecompressionError(f"records do not decompress to the stated {size} bytes: {error}") from error
    if length != size:
        raise DecompressionError(f"records decompress to {length} bytes, the batch states {size}")
    return bytes(target)
