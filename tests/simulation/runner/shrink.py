"""Shrinking a plan: which of its actions are needed for a failure.

Delta debugging (Zeller's ddmin), in the form that goes on behind a piece that was dropped instead of beginning again.

Pure: it is given a test of plans. The outcome is minimal in that no single action can be left out, unless the time
was over before; then it is the smallest plan found.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.simulation.runner.worlds import sort_of

Plan = tuple[Any, ...]
Fails = Callable[[Plan], Awaitable[bool]]


class _OutOfTimeError(Exception):
    """The smallest plan so far has to do."""


class Shrinker:
    """Shrinks one plan. `tried` counts the tests."""

    def __init__(self, fails: Fails, expired: Callable[[], bool]) -> None:
        self.tried = 0
        self._fails = fails
        self._expired = expired
        self._known: dict[tuple[int, ...], bool] = {}
        self._plan: Plan = ()
        self._kept: tuple[int, ...] = ()

    async def shrink(self, plan: Sequence[Any]) -> tuple[Plan, bool]:
        """Give the smallest plan that still fails, and whether it is known to be minimal."""
        self._plan = tuple(plan)
        self._kept = tuple(range(len(self._plan)))
        try:
            await self._shorten()
            await self._drop_kinds()
            await self._drop_pieces()
        except _OutOfTimeError:
            return self._chosen(), False
        return self._chosen(), True

    async def _shorten(self) -> None:
        """What comes after the failure is not needed: look for the end of a prefix that fails."""
        low, high = 0, len(self._kept)
        whole = self._kept
        while low < high:
            middle = (low + high) // 2
            if await self._accept(whole[:middle]):
                high = middle
            else:
                low = middle + 1

    async def _drop_kinds(self) -> None:
        """All of a kind at once, the most frequent first: often the clients' operations, or a fault that is not it."""
        for kind, _ in Counter(sort_of(action) for action in self._chosen()).most_common():
            await self._accept(tuple(i for i in self._kept if sort_of(self._plan[i]) != kind))

    async def _drop_pieces(self) -> None:
        """Pieces of half the plan, of a quarter and so on, until no single action can be left out."""
        size = max(1, len(self._kept) // 2)
        while await self._drop_pieces_of(size) or size > 1:
            size = max(1, size // 2)

    async def _drop_pieces_of(self, size: int) -> bool:
        """From the end on: what is left out late leaves what came before it as it was."""
        before = len(self._kept)
        for at in range(((before - 1) // size) * size, -1, -size):
            await self._accept(self._kept[:at] + self._kept[at + size :])
        return len(self._kept) < before

    async def _accept(self, choice: tuple[int, ...]) -> bool:
        """Go on with this choice if it fails."""
        if choice not in self._known:
            if self._expired():
                raise _OutOfTimeError
            self.tried += 1
            self._known[choice] = await self._fails(tuple(self._plan[i] for i in choice))
        if self._known[choice]:
            self._kept = choice
        return self._known[choice]

    def _chosen(self) -> Plan:
        return tuple(self._plan[i] for i in self._kept)
