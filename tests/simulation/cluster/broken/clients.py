"""The client, broken."""

from typing import Any

from penstock.client.cursor import Cursor
from penstock.client.errors import UnavailableError
from penstock.client.fetcher import Fetcher
from penstock.client.sequencing import Flight, Settled, Window
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason


def mend_with_new_numbers(self: Window[Any, Any]) -> list[Settled[Any, Any]]:
    """A batch that may have been appended is sent again under new numbers."""
    if not self._gap or self.under_way or self._producer is None:
        return []
    self._gap = False
    producer_id, producer_epoch = self._producer
    self.adopt(producer_id, producer_epoch + 1)
    return []


_lost = Window.lost


def lost_and_renumbered(self: Window[Any, Any], error: PenstockError, now_ms: float) -> list[Settled[Any, Any]]:
    """What the stream took with it goes again under new numbers."""
    settled = _lost(self, error, now_ms)
    if self._idempotent and not self.under_way:
        for flight in self.flights:
            flight.uncertain = False
        self._gap = True
    return settled + self._mend()


def lost_is_not_sent(self: Window[Any, Any], flight: Flight[Any], error: PenstockError, now_ms: float) -> list[Any]:
    """A batch without an answer is taken for one that was not appended."""
    flight.error = error
    self._pause(now_ms)
    return [] if self._idempotent else [self._given_up(flight, error)]


def unknown_is_failed(error: PenstockError | None) -> PenstockError:
    """What may have been appended is reported as not appended."""
    return UnavailableError(Reason.NOT_SERVING, f"not appended; last: {error}")


_adopt = Window.adopt


def adopt_in_reverse(self: Window[Any, Any], producer_id: int, producer_epoch: int) -> None:
    """In a new producer epoch the last one goes first."""
    self.flights.reverse()
    _adopt(self, producer_id, producer_epoch)


async def reset_above_end(self: Fetcher, cursor: Cursor, error: PenstockError) -> bool:
    """Rule 23: above the end is as below the start."""
    offset = await self._offset(cursor, "earliest")
    cursor.skip_to(offset)
    self._place(cursor)
    return False
