"""Which partition a record goes to. Keys: murmur2, as Kafka's clients (protocol.keys). No key: sticky, one partition
until its batch closes, so that keyless records fill whole batches.
"""

import random
from functools import lru_cache

from penstock.protocol.keys import murmur2

KEY_CACHE = 16_384
"""Hashes of recent keys kept: a hit is about ten times as fast as the hash."""

_hash_of = lru_cache(maxsize=KEY_CACHE)(murmur2)


def partition_of_key(key: bytes, partitions: int) -> int:
    """Give the partition of a key among `partitions`; same as protocol.keys.partition_of."""
    return (_hash_of(key) & 0x7FFFFFFF) % partitions


def next_sticky(rng: random.Random, partitions: int, present: int) -> int:
    """Choose the partition that keyless records go to next: another one, where there is another."""
    if partitions < 2:
        return 0
    chosen = rng.randrange(partitions - 1)
    return chosen + 1 if chosen >= present else chosen
