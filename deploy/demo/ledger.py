"""What the demo's publisher was told, compared with what consumers were given. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from penstock.client import Delivery, PenstockError, Record
from penstock.protocol.reasons import Outcome

Place = tuple[int, int]
"""Partition and offset."""


class Ledger:
    """Orders by number: where they were acknowledged, or how they failed."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.unknown: set[int] = set()
        self.refused: dict[int, PenstockError] = {}

    def acknowledged(self, number: int, delivery: Delivery) -> None:
        """Note an acknowledgement."""
        self.places[number] = (delivery.partition, delivery.offset)

    def failed(self, number: int, error: PenstockError) -> None:
        """Note a failure, or an outcome that nobody knows."""
        if error.outcome is Outcome.UNKNOWN:
            self.unknown.add(number)
        else:
            self.refused[number] = error

    def summary(self) -> str:
        """Count the outcomes."""
        total = len(self.places) + len(self.unknown) + len(self.refused)
        return (
            f"{len(self.places):,} of {total:,} orders acknowledged, {len(self.refused)} refused, "
            f"{len(self.unknown)} of unknown outcome"
        )

    def missing(self, records: Sequence[Record]) -> set[int]:
        """Give the acknowledged orders that are not among `records`."""
        return self.places.keys() - {number_of(record) for record in records}

    def problems(self, records: Sequence[Record], how: str) -> Iterator[str]:
        """Say what is wrong with the records that a consumer was given."""
        for number in sorted(self.missing(records)):
            yield f"order {number}, acknowledged at {self.places[number]}, was not {how}"
        for number, times in Counter(map(number_of, records)).items():
            if times > 1:
                yield f"order {number} was {how} {times} times"
        latest: dict[bytes | None, int] = {}
        for record in records:
            number, place = number_of(record), (record.partition, record.offset)
            if number in self.refused:
                yield f"order {number}, refused, was {how} at {place}"
            if self.places.get(number, place) != place:
                yield f"order {number}, acknowledged at {self.places[number]}, was {how} at {place}"
            if number < latest.get(record.key, -1):
                yield f"order {number} was {how} after order {latest[record.key]} of the same customer"
            latest[record.key] = number


def number_of(record: Record) -> int:
    """Give the order's number."""
    return int(dict(record.headers)["number"] or b"")
