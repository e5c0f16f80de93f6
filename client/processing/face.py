"""What a consumer has of process(): the methods, over a Processor."""

from typing import Unpack

from penstock.client.processing.options import Handler, ProcessConfig, ProcessOptions
from penstock.client.processing.processor import Processor
from penstock.client.processing.statistics import ProcessingStatistics


class ProcessingFace:
    """Base of Consumer."""

    processor: Processor

    async def process(self, handler: Handler, **options: Unpack[ProcessOptions]) -> ProcessingStatistics:
        """Call `handler` for every record, several at a time; commit what is done. Keyword arguments: ProcessConfig.

        Records of one key (of one partition) are handled one after the other, in their order. Committed is what lies
        below the first record that is not done, in the background, when partitions are given up, and at the end: each
        record is handled at least once. Without a group nothing is committed. A coroutine function runs on the event
        loop, any other handler in a thread.

        Runs until `stop`, `close`, a record that `on_failure` stops at (HandlerError), an error of a poll, or
        cancelling; then the consumer stands at the first record that is not done. Gives what was done.
        """
        return await self.processor.run(handler, ProcessConfig(**options))

    def stop(self) -> None:
        """Have process() end: what was begun is finished and committed. Does not wait; handlers may call it."""
        self.processor.stop()

    def statistics(self) -> ProcessingStatistics:
        """Give what process() has done so far, or the last one did."""
        return self.processor.statistics

    def topic_id(self, topic: str) -> bytes:
        """Give the id of a topic that is read, the last one known. Any thread may call it. Raises UnknownTopicError."""
        return self.processor.topic_id(topic)
