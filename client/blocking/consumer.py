"""The blocking consumer: records cross from the background thread in bulk, positions are those of records given out."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Self, Unpack

from penstock.client import consumer as _consumer
from penstock.client.blocking.face import Face, soon
from penstock.client.blocking.group import ITERATION_WAIT_S, LOOKAHEAD_RECORDS, InGroup
from penstock.client.blocking.producer import Producer
from penstock.client.fetched import FetchedBatch
from penstock.client.group.face import Offsets, OnCommit
from penstock.client.group.listener import RebalanceListener
from penstock.client.group.reader import GroupMembership
from penstock.client.options import ConsumerOptions
from penstock.client.processing.options import Handler, ProcessOptions
from penstock.client.processing.policies import DeadLetter, End, Policy, Retry
from penstock.client.processing.statistics import ProcessingStatistics
from penstock.client.records import CommittedOffset, Position, Record, TopicPartition


class Consumer(Face):
    """Reads partitions; see penstock.client.Consumer. Iterating gives records without end."""

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ConsumerOptions]) -> None:
        super().__init__()
        self._inner = _consumer.Consumer(bootstrap, **options)
        self._lookahead: deque[Record] = deque()
        self._group: InGroup | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        """Give records as they come. Leaving the loop loses none: positions are those of the records given."""
        group = self._group
        while group is not None:
            yield group.next()
        while True:
            while self._lookahead:
                yield self._lookahead.popleft()
            self._run(self._fill(LOOKAHEAD_RECORDS, ITERATION_WAIT_S))

    def open(self) -> None:
        """Start. Needs no broker yet."""
        self._start(self._inner.open)
        if self._inner._group is not None:  # noqa: SLF001 - its other face
            self._group = InGroup(self._inner, self._inner._group, self._run)  # noqa: SLF001 - its other face

    def close(self, *, leave: bool = True) -> None:
        """See penstock.client.Consumer.close."""
        if self._thread is not None:
            self._run(soon(self._inner.processor.check_ending))
            try:
                self._run(self._inner.processor.end())
                self._tell_closing()
            finally:
                try:
                    self._run(self._inner._close(leave=leave, told=True))  # noqa: SLF001 - its other face
                finally:
                    self._stop()

    def _tell_closing(self) -> None:
        if self._group is not None:
            self._group.tell_closing()

    def subscribe(
        self,
        topics: str | Sequence[str] = (),
        pattern: str | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """See penstock.client.Consumer.subscribe."""
        self._run(self._inner.subscribe(topics, pattern, listener))

    def assign(
        self, partitions: Iterable[TopicPartition] | Mapping[TopicPartition, Position], start: Position = "latest"
    ) -> None:
        """See penstock.client.Consumer.assign."""
        self._run(self._inner.assign(partitions, start))
        self._lookahead.clear()

    def assign_topics(self, topics: Iterable[str], start: Position = "latest") -> None:
        """See penstock.client.Consumer.assign_topics."""
        self._run(self._inner.assign_topics(topics, start))
        self._lookahead.clear()

    def assignment(self) -> tuple[TopicPartition, ...]:
        """See penstock.client.Consumer.assignment."""
        return self._inner.assignment()

    def seek(self, partition: TopicPartition, to: Position) -> None:
        """See penstock.client.Consumer.seek."""
        self._run(self._inner.seek(partition, to))
        if self._group is not None:
            self._group.drop(partition)
        self._lookahead = deque(record for record in self._lookahead if record[:2] != tuple(partition))

    def pause(self, *partitions: TopicPartition) -> None:
        """See penstock.client.Consumer.pause."""
        self._put_back()
        self._run(soon(lambda: self._inner.pause(*partitions)))

    def resume(self, *partitions: TopicPartition) -> None:
        """See penstock.client.Consumer.resume."""
        self._run(soon(lambda: self._inner.resume(*partitions)))

    def paused(self) -> tuple[TopicPartition, ...]:
        """See penstock.client.Consumer.paused."""
        return self._run(soon(self._inner.paused))

    def position(self, partition: TopicPartition) -> int:
        """See penstock.client.Consumer.position."""
        ahead = (record.offset for record in self._lookahead if record[:2] == tuple(partition))
        first = next(ahead, None) if self._group is None else self._group.first_ahead(partition)
        return self._run(soon(lambda: self._inner.position(partition))) if first is None else first

    def poll(self, max_records: int = 500, timeout: float = 1.0) -> list[Record]:
        """See penstock.client.Consumer.poll."""
        if self._group is not None:
            return self._group.poll(lambda left_s: self._inner.poll(max_records, left_s), timeout)
        if not self._lookahead:
            self._run(self._fill(max_records, timeout))
        if len(self._lookahead) > max_records:
            return [self._lookahead.popleft() for _ in range(max_records)]
        records = list(self._lookahead)
        self._lookahead.clear()
        return records

    def poll_batches(self, max_batches: int = 100, timeout: float = 1.0) -> list[FetchedBatch]:
        """See penstock.client.Consumer.poll_batches."""
        if self._group is not None:
            return self._group.poll(lambda left_s: self._inner.poll_batches(max_batches, left_s), timeout)
        self._put_back()
        return self._run(self._inner.poll_batches(max_batches, timeout))

    def process(self, handler: Handler, **options: Unpack[ProcessOptions]) -> ProcessingStatistics:
        """See penstock.client.Consumer.process. Plain handlers run in threads of their own, several at a time."""
        self._put_back()
        if "on_failure" in options:
            options["on_failure"] = _on_the_loop(options["on_failure"])
        if self._group is None:
            return self._run(self._inner.process(handler, **options))
        with self._group.processing():
            return self._run(self._inner.process(handler, **options))

    def stop(self) -> None:
        """See penstock.client.Consumer.stop. Any thread may call it, handlers too."""
        if self._thread is not None:
            self._thread.call_soon(self._inner.stop)

    def statistics(self) -> ProcessingStatistics:
        """See penstock.client.Consumer.statistics. Any thread may call it."""
        return self._run(soon(self._inner.statistics))

    def topic_id(self, topic: str) -> bytes:
        """See penstock.client.Consumer.topic_id."""
        return self._inner.topic_id(topic)

    def commit(self, offsets: Offsets | None = None) -> None:
        """See penstock.client.Consumer.commit."""
        self._run(self._inner.commit(offsets))

    def commit_soon(self, offsets: Offsets | None = None, on_done: OnCommit | None = None) -> None:
        """See penstock.client.Consumer.commit_soon; `on_done` is called on the background thread."""
        self._run(soon(lambda: self._inner.commit_soon(offsets, on_done)))

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, CommittedOffset | None]:
        """See penstock.client.Consumer.committed."""
        return self._run(self._inner.committed(partitions))

    @property
    def group_member(self) -> GroupMembership | None:
        """See penstock.client.Consumer.group_member."""
        return None if self._thread is None else self._run(soon(lambda: self._inner.group_member))

    async def _fill(self, max_records: int, timeout_s: float) -> None:
        """Put what is read where an interrupted wait leaves it for the next one."""
        self._lookahead.extend(await self._inner.poll(max_records, timeout_s))

    def _put_back(self) -> None:
        """Read again, later, what was taken from the background thread and not given out."""
        if self._group is not None:
            self._group.put_back()
        firsts: dict[TopicPartition, int] = {}
        for record in self._lookahead:
            firsts.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in firsts.items():
            self._run(self._inner.seek(partition, offset))
        self._lookahead.clear()

    def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See penstock.client.Consumer.earliest_offsets."""
        return self._run(self._inner.earliest_offsets(partitions))

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See penstock.client.Consumer.end_offsets."""
        return self._run(self._inner.end_offsets(partitions))

    def lag(self) -> dict[TopicPartition, int]:
        """See penstock.client.Consumer.lag."""
        ends = self.end_offsets(self.assignment())
        present = self.assignment()  # a group may have taken some away meanwhile
        return {
            partition: max(0, end - self.position(partition)) for partition, end in ends.items() if partition in present
        }


def _on_the_loop(policy: Policy) -> Policy:
    """Have dead letters go through the asyncio producer inside a blocking one: both live on the background thread."""
    if isinstance(policy, Retry):
        return replace(policy, then=_inner_letter(policy.then))
    return _inner_letter(policy)


def _inner_letter(end: End) -> End:
    if isinstance(end, DeadLetter) and isinstance(end.producer, Producer):
        return replace(end, producer=end.producer.inner)
    return end
