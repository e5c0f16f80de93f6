"""What NATS' client for Python does of `throughput`: the evidence for measuring JetStream with its client in Go.

    python -m benchmarks.peers.jetstream_python [--synced] [--records N] [--partitions P] [--record-bytes B]

Starts three servers, publishes to streams with three replicas by publish_async, with at most MAX_PENDING messages in
flight, and prints the Load. Needs nats-py; Python's client for fast ingest is a package of its own and builds
on another client, so that it is not measured.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.pace import Stopwatch, payload
from benchmarks.peers.jetstream import JetStream
from benchmarks.result import Load
from benchmarks.system import UnavailableError
from benchmarks.workloads import ACKS_ALL, Workload

MAX_PENDING = 16_000
"""As the client's in Go."""


async def throughput(bootstrap: str, workload: Workload) -> Load:
    """Publish the records of a workload, after its warm-up. Raises UnavailableError without nats-py."""
    try:
        import nats  # noqa: PLC0415 - everything else here runs without it
    except ImportError as error:
        raise UnavailableError("the Python client of NATS is missing: pip install nats-py") from error
    connection = await nats.connect(bootstrap.split(","), allow_reconnect=False)
    jetstream = connection.jetstream(publish_async_max_pending=MAX_PENDING)
    data, subjects = payload(workload), [f"{workload.name}.{number}" for number in range(workload.partitions)]
    run = max(workload.batch_bytes // workload.record_bytes, 1)

    async def publish(records: int) -> None:
        chosen = (subjects[number // run % len(subjects)] for number in range(records))
        await asyncio.gather(*[await jetstream.publish_async(subject, data) for subject in chosen])

    await publish(workload.warm_records)
    watch = Stopwatch()
    await publish(workload.records)
    watch.stop()
    await connection.close()
    return watch.load(workload, workload.records)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synced", action="store_true", help="sync_interval: always")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--record-bytes", type=int, default=100)
    options = parser.parse_args()
    base = Workload("python", "throughput", options.partitions, 3, ACKS_ALL, options.record_bytes)
    workload = replace(base, records=options.records, warm_records=options.records // 5)
    servers = JetStream("jetstream-synced" if options.synced else "jetstream")
    servers.prepare()
    with tempfile.TemporaryDirectory(prefix="jetstream-python-") as folder:
        try:
            servers.start(Path(folder))
            servers.create(workload)
            load = asyncio.run(throughput(servers.bootstrap, workload))
        finally:
            servers.stop()
    sys.stdout.write(json.dumps({**load.to_json(), "records_s": round(load.records / load.seconds)}) + "\n")


if __name__ == "__main__":
    main()
