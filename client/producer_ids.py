"""Asks the cluster for producer ids, as long as it takes. Owns one task."""

import asyncio
from collections.abc import Callable

from penstock.client.errors import is_retriable, is_unknown
from penstock.client.produce_stream import end
from penstock.client.retry import CallPolicy
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.v1 import producer_service_pb2 as pb

CALL_TIMEOUT_MS = 30_000


class ProducerIds:
    """`present` is None while there is none; `on_change` is called when there is a new one, `on_refusal` when never."""

    def __init__(
        self, session: ClientSession, on_change: Callable[[], None], on_refusal: Callable[[PenstockError], None]
    ) -> None:
        self.present: tuple[int, int] | None = None
        self._session = session
        self._on_change = on_change
        self._on_refusal = on_refusal
        self._task: asyncio.Task[None] | None = None

    @property
    def is_renewing(self) -> bool:
        """A call is under way."""
        return self._task is not None and not self._task.done()

    def renew(self) -> None:
        """Get a new id; the present one is used no more for what needs one now."""
        self.present = None
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            await end([self._task])

    async def _run(self) -> None:
        while self.present is None:
            try:
                answer = await self._session.caller.call(
                    lambda c: c.producer.InitProducer,
                    pb.InitProducerRequest(),
                    pb.InitProducerResponse,
                    CallPolicy(CALL_TIMEOUT_MS),
                )
            except PenstockError as error:
                if not (is_retriable(error) or is_unknown(error)):
                    self._on_refusal(error)
                    return
            else:
                self.present = (answer.producer_id, answer.producer_epoch)
        self._on_change()
