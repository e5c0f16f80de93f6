"""Work that brokers do before anything is measured: Java compiles what runs often, and a broker that was just started
answers ten times later than one that runs. All paths that the workloads take are gone once, for some seconds.
"""

from dataclasses import replace

from benchmarks.peers.kafka.client import KafkaDriver
from benchmarks.workloads import ACKS_ALL, Workload

_SEND = Workload("warm-up", "throughput", 6, 3, ACKS_ALL, 100, records=100_000)
_PACE = Workload("warm-up-paced", "open_loop", 6, 3, ACKS_ALL, 1024, rate=2_000, seconds=3.0, linger_ms=1.0)
TOPICS = (_SEND, _PACE)
WORK = (_SEND, replace(_SEND, kind="consume", cold=True), _PACE)
"""`cold`: the consumer reads what is there, it fills nothing."""


def warm_up(bootstrap: str) -> None:
    """Do the work, on TOPICS, which there must be."""
    driver = KafkaDriver()
    for workload in WORK:
        driver.drive(bootstrap, workload)
