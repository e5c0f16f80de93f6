"""The configuration of librdkafka's producer and consumer: what is set, and why. The rest is its default. Pure."""

from benchmarks.peers.kafka.config import BATCH_OVERHEAD_BYTES
from benchmarks.workloads import ACKS_ALL, Workload

DEFAULT_REQUEST_BYTES = 1_000_000
"""librdkafka's message.max.bytes: of a produce request, which holds one batch."""
DEFAULT_BATCH_BYTES = 1_000_000
"""librdkafka's batch.size. A limit of 64 KiB, as of Penstock's client, costs it two thirds of its throughput: a request
holds one batch, an idempotent producer has five requests in flight to a broker, and the sticky partitioner fills one
partition at a time. So it keeps its own default, except where the size of batches is what is measured."""
WAITING_RECORDS = 500_000
"""For the producer to send; as librdkafka's own performance tool sets it."""
QUEUED_RECORDS = 1_000_000
"""As librdkafka's own performance tool sets it. A consumer that has reached the limit of its queue (by default 100,000
records a partition) waits for a second (fetch.queue.backoff.ms) before it fetches again: throughput wants neither."""
QUEUED_KB = 1_048_576
FETCH_BACKOFF_MS = 10
ERRORS = 3
"""log_level: that a coordinator of a new cluster is loading is no news."""
Settings = dict[str, str | int | float | bool]


def producer_settings(bootstrap: str, workload: Workload) -> Settings:
    """Give a producer's settings. Idempotence, as Penstock's; librdkafka has it with acks=all alone."""
    return {
        "bootstrap.servers": bootstrap,
        "log_level": ERRORS,
        "acks": "all" if workload.acks == ACKS_ALL else "1",
        "enable.idempotence": workload.acks == ACKS_ALL,
        "compression.type": "none",
        "linger.ms": workload.linger_ms,
        "batch.size": workload.batch_bytes if workload.fixed_batches else DEFAULT_BATCH_BYTES,
        "queue.buffering.max.messages": WAITING_RECORDS,
        "message.max.bytes": max(DEFAULT_REQUEST_BYTES, workload.batch_bytes + BATCH_OVERHEAD_BYTES),
    }


def consumer_settings(bootstrap: str) -> Settings:
    """Give a consumer's settings; it commits nothing."""
    return {
        "bootstrap.servers": bootstrap,
        "log_level": ERRORS,
        "group.id": "benchmark",
        "enable.auto.commit": False,
        "queued.min.messages": QUEUED_RECORDS,
        "queued.max.messages.kbytes": QUEUED_KB,
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
    }
