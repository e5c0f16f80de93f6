"""Numbers for what is named again and again: processes, and partitions of topics."""

from typing import Generic, TypeVar

N = TypeVar("N")


class Names(Generic[N]):
    """Gives each name a number, from 0 on, in the order in which they come."""

    def __init__(self) -> None:
        self.names: list[N] = []
        self._numbers: dict[N, int] = {}

    def __getitem__(self, number: int) -> N:
        return self.names[number]

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: N) -> int:
        """Give the name's number; a new one where it has none."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self.names)
            self.names.append(name)
        return found

    def find(self, name: N) -> int | None:
        """Give the name's number, if it has one."""
        return self._numbers.get(name)
