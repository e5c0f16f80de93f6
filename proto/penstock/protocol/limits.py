"""Limits that both sides must know. A topic may set lower ones; nothing may exceed these."""

import re

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest gRPC message either side accepts."""
MAX_BATCH_BYTES = 32 * 1024 * 1024
"""Largest serialized RecordBatch that a topic may allow."""
DEFAULT_MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Largest serialized RecordBatch of a topic that does not say."""
MAX_RECORDS_SIZE = 128 * 1024 * 1024
"""Largest uncompressed RecordSet."""
MAX_COMPACTED_RECORDS_SIZE = MAX_BATCH_BYTES
"""Largest uncompressed RecordSet that a compacted topic takes: its leader looks into it at each append."""
MAX_BATCH_RECORDS = 1_000_000
"""Most records in a batch."""
MAX_DURATION_MS = 315_576_000_000_000
"""Longest time that a topic may set: the longest google.protobuf.Duration, 10,000 years."""
DEFAULT_DELETE_RETENTION_MS = 86_400_000
DEFAULT_MIN_DIRTY_RATIO = 0.5
DEFAULT_TIMESTAMP_AFTER_MAX_MS = 3_600_000
MAX_TOPIC_NAME = 249
MAX_PARTITIONS_PER_TOPIC = 10_000

MAX_GROUPS = 10_000
MAX_GROUP_MEMBERS = 2_000
MAX_GROUP_PARTITIONS = 10_000
"""Partitions that the members of a group may be to have, and may own: all may change in one command."""
MAX_GROUP_ID = 249
MAX_MEMBER_ID = 249
"""Characters of a member_id; also of an instance_id and a client_id."""
MAX_MEMBER_HOST = 255
MAX_SUBSCRIBED_TOPICS = 1_000
"""Topics that a subscription may name."""
MAX_PATTERN = 1_000
"""Characters of a subscription's pattern."""
MAX_REBALANCE_CAUSE = 1_000
"""Characters of what is noted as the cause of a generation."""
MAX_GROUP_OFFSETS = 10_000
"""Offsets of one commit."""
MAX_OFFSET_METADATA = 4_096
"""Bytes of the metadata beside a committed offset."""

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def topic_name_problem(name: str) -> str | None:
    """Say what is wrong with a topic name, or None. Same rules as Kafka's; two leading underscores are reserved."""
    if not name:
        return "a topic name must not be empty"
    if name in {".", ".."}:
        return f"a topic cannot be named {name!r}"
    if not _TOPIC_NAME.fullmatch(name):
        return f"topic name {name[:300]!r} is not 1 to {MAX_TOPIC_NAME} of the characters a-z A-Z 0-9 . _ -"
    if name.startswith("__"):
        return f"topic name {name!r} begins with two underscores, which is reserved for internal topics"
    return None
