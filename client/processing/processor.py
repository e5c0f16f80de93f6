"""Puts process() together for a consumer: one run at a time, its statistics, and its end."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from penstock.client.checks import invalid
from penstock.client.errors import UnknownTopicError
from penstock.client.processing.calls import HandlerCalls
from penstock.client.processing.dead_letters import DeadLetters
from penstock.client.processing.failing import Failures
from penstock.client.processing.options import Handler, ProcessConfig
from penstock.client.processing.policies import DeadLetter, end_of
from penstock.client.processing.run import Processing
from penstock.client.processing.source import Source
from penstock.client.processing.statistics import Counters, ProcessingStatistics
from penstock.client.producer import Producer
from penstock.client.seams import Seams
from penstock.protocol.reasons import Reason


class Ground(NamedTuple):
    """What a consumer lends to process(), besides records."""

    seams: Callable[[], Seams]
    make_producer: Callable[[], Producer]
    """Makes a producer for dead letters, to the same cluster."""
    check_topic: Callable[[str], Awaitable[object]]
    """Raises UnknownTopicError."""
    topic_id: Callable[[str], bytes | None]
    """Of a topic that is known now."""


class Processor:
    """See the module."""

    def __init__(self, source: Source, ground: Ground) -> None:
        self._source = source
        self._ground = ground
        self._run: Processing | None = None
        self._last = Counters().snapshot(0, 0)
        self._topic_ids: dict[str, bytes] = {}

    @property
    def is_running(self) -> bool:
        """process() is under way."""
        return self._run is not None

    @property
    def statistics(self) -> ProcessingStatistics:
        """Of the run under way, else of the last one."""
        return self._last if self._run is None else self._run.statistics

    async def run(self, handler: Handler, config: ProcessConfig) -> ProcessingStatistics:
        """See Consumer.process."""
        if self._run is not None:
            raise invalid("process() is running already")
        if not callable(handler):
            raise invalid(f"the handler is a {type(handler).__name__}, which cannot be called")
        letters = self._letters(config)
        seams = self._ground.seams()
        failures = Failures(config.on_failure, letters, seams.rng)
        calls = HandlerCalls(handler, config.parse, config.concurrency)
        run = self._run = Processing(self._source, config, calls, failures, seams.clock)
        try:
            if letters is not None:
                await self._ground.check_topic(letters.topic)
            return await run.run()
        finally:
            self._last, self._run = run.statistics, None
            run.finished.set()

    def check_reader(self) -> None:
        """Refuse others than process() to read meanwhile: its handlers would miss what they were given."""
        if self._run is not None and not self._run.is_feeding():
            raise invalid("process() is running: all records go to its handler")

    def topic_id(self, topic: str) -> bytes:
        """See Consumer.topic_id."""
        found = self._ground.topic_id(topic) or self._topic_ids.get(topic)
        if found is None:
            raise UnknownTopicError(Reason.UNKNOWN_TOPIC, f"topic {topic!r} is not known to the consumer")
        self._topic_ids[topic] = found  # for its records that are handled after its end
        return found

    def stop(self) -> None:
        """End the run, if there is one, in order."""
        if self._run is not None:
            self._run.stop()

    def check_ending(self) -> None:
        """Refuse a handler, or a listener that is called by the run, to wait for the run's end."""
        run = self._run
        if run is not None and (run.is_within() or run.is_feeding()):
            raise invalid("close() inside a handler or listener of process() would wait for itself: call stop()")

    async def end(self) -> None:
        """End the run, if there is one, and wait for that: the consumer closes."""
        self.check_ending()
        run = self._run
        if run is not None:
            run.stop()
            await run.finished.wait()

    def _letters(self, config: ProcessConfig) -> DeadLetters | None:
        letter = end_of(config.on_failure)
        if not isinstance(letter, DeadLetter):
            return None
        ground = self._ground
        return DeadLetters(letter, self._source.group, ground.make_producer, ground.seams())
