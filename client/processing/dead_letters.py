"""Writes dead letters: acknowledged by every in-sync replica before the record counts as done, or an error."""

from collections.abc import Awaitable, Callable, Sequence

from penstock.client.checks import invalid
from penstock.client.errors import is_retriable, is_unknown
from penstock.client.options import ConsumerConfig
from penstock.client.processing.letters import headers_of
from penstock.client.processing.policies import DeadLetter, Failure
from penstock.client.producer import Producer
from penstock.client.retry import Backoff
from penstock.client.seams import Seams
from penstock.protocol.errors import PenstockError

PUBLISH_ATTEMPTS = 3
"""Times that a dead letter is sent, each for as long as the producer's delivery timeout."""
DELIVERY_TIMEOUT_MS = 30_000
"""Of a producer that process() has of its own."""


class DeadLetters:
    """Used from one event loop. Without a producer given, it has its own, from the first letter on."""

    def __init__(self, letter: DeadLetter, group: str, make_producer: Callable[[], Producer], seams: Seams) -> None:
        if letter.producer is not None and not isinstance(letter.producer, Producer):
            raise invalid(f"the dead letters' producer is a {type(letter.producer).__name__}, no asyncio Producer")
        if letter.producer is not None and letter.producer.config.acks != "all":
            raise invalid("the dead letters' producer has acks below 'all': letters could be lost")
        self.topic = letter.topic
        self._given = letter.producer
        self._own: Producer | None = None
        self._make_producer = make_producer
        self._group = group
        self._seams = seams

    async def send(self, failure: Failure) -> None:
        """Write the record to the dead-letter topic. Raises PenstockError: it is not there, or may not be."""
        if failure.record.topic == self.topic:
            raise invalid(f"it comes from {self.topic!r}, where the dead letters go: it would come again for ever")
        backoff = Backoff(self._seams.rng)
        for attempt in range(1, PUBLISH_ATTEMPTS + 1):
            try:
                await self._send_once(failure)
            except PenstockError as error:
                if attempt == PUBLISH_ATTEMPTS or not (is_retriable(error) or is_unknown(error)):
                    raise
                await self._seams.clock.sleep_ms(backoff.next_ms())
            else:
                return

    async def _send_once(self, failure: Failure) -> None:
        producer = self._given or await self._open_own()
        record = failure.record
        headers = headers_of(failure, self._group)
        sent: Awaitable[object] = await producer.send(self.topic, record.value, key=record.key, headers=headers)
        await sent

    async def _open_own(self) -> Producer:
        if self._own is None:
            producer = self._own = self._make_producer()
            await producer.open()  # does not wait: no second letter finds it half open
        return self._own

    async def close(self) -> None:
        """Close the producer of its own."""
        if self._own is not None:
            await self._own.close()


def producer_beside(bootstrap: Sequence[str], consumer: ConsumerConfig, seams: Seams) -> Producer:
    """Make a producer of dead letters for a consumer."""
    producer = Producer(
        bootstrap,
        delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
        credentials=consumer.credentials,
        address_map=consumer.address_map,
    )
    producer._seams = seams  # noqa: SLF001 - both are of one world
    return producer
