"""Apache Kafka as a peer: three brokers in KRaft mode on loopback, and a Python client, confluent-kafka (librdkafka).

Two names, which differ in one setting of the brokers:

- `kafka`: as it comes. A broker writes to the page cache and leaves it to the system when that goes to the disk; it is
  the replicas that stand for a record. Kafka's documentation recommends this.
- `kafka-synced`: log.flush.interval.messages=1. Each append is followed by fsync, on the leader before it answers, and
  on a follower before its next fetch tells the leader that it has the records. An acknowledgement then means what
  Penstock's does; this is the mode to compare Penstock with.

What an acknowledgement means, with three replicas all in sync and min.insync.replicas=2, no unclean election:

    acks              kafka                                       kafka-synced
    leader (acks=1)   in the leader's memory; lost with           on the leader's disk; lost with the leader's disk, or
                      its machine, or when another leads          when another that had it not leads
    all (acks=all)    in the memory of every replica in sync;     on the disk of every replica in sync (two at least);
                      survives the end of processes and of one    survives the loss of power of all machines at once
                      machine, not the loss of power of all

Where only the processes end, page cache survives in both modes.

The brokers are what `config` says: the defaults of the version in pom.xml with the heap and the collector of Kafka's
own start scripts, three replicas for internal topics, two in sync at least, no unclean election, no automatic topics.
Each is a controller as well, so that there are three processes as of every other system. Leaders go round the brokers.
They are warmed up (`warming`) after each start, before anything is measured, so that Java has compiled what it runs.

The client is what `settings` says; its batches are as large as its project has them, unless their size is what is
measured. librdkafka is idempotent with acks=all alone, so with acks=1 it is not. The consumer
is assigned all partitions, because joining a group takes seconds that are not consumption; librdkafka does not check
the CRC of what it reads (its default). Before a consume workload is measured, another consumer reads the first
`warm_records`, also where the servers were just started: brokers keep no records in their own memory.
"""

from benchmarks.peers.kafka.brokers import KafkaSystem
from benchmarks.system import Driver, System

SYNCED = {"kafka": False, "kafka-synced": True}


def system(name: str) -> System:
    """Give the brokers. Raises KeyError for an unknown name."""
    return KafkaSystem(name, synced=SYNCED[name])


def driver(name: str) -> Driver:
    """Give the client, which is the same for both names. Raises KeyError for an unknown name."""
    from benchmarks.peers.kafka.client import KafkaDriver  # noqa: PLC0415  the client may not be installed

    if name not in SYNCED:
        raise KeyError(name)
    return KafkaDriver()
