"""Which record may be worked on next. Pure.

Invariants: of one lane at most one record is under way, from its first attempt to its end, waits between two attempts
included; the records of a lane come in the order in which they were added; lanes take turns.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush

from penstock.client.processing.progress import Work


class _Lane:
    """The record whose turn it is, and those behind it."""

    __slots__ = ("behind", "head")

    def __init__(self, head: Work) -> None:
        self.head = head
        self.behind: deque[Work] = deque()


class Lanes:
    """See the module."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane] = {}
        self._ready: OrderedDict[Work, None] = OrderedDict()
        self._postponed: dict[Work, int] = {}
        self._due: list[tuple[int, int, Work]] = []
        """Heap of times; the count keeps works out of the comparison. What is not in `_postponed` is of no more use."""
        self._count = 0

    def add(self, work: Work) -> None:
        """Put a record behind those of its lane."""
        lane = self._lanes.get(work.lane)
        if lane is None:
            self._lanes[work.lane] = _Lane(work)
            self._ready[work] = None
        else:
            lane.behind.append(work)

    def take(self, now_ms: int) -> Work | None:
        """Give the record that is to begin now; its lane stands still until `finish` or `postpone`."""
        self._wake(now_ms)
        if not self._ready:
            return None
        work, _ = self._ready.popitem(last=False)
        work.running = True
        return work

    def finish(self, work: Work) -> None:
        """The record is at its end, done or not: the next of its lane may begin."""
        work.running = False
        self._advance(work.lane)

    def postpone(self, work: Work, due_ms: int) -> None:
        """The record begins again at `due_ms`; its lane waits for it."""
        work.running = False
        self._count += 1
        self._postponed[work] = due_ms
        heappush(self._due, (due_ms, self._count, work))

    def drop(self, unwanted: Callable[[Work], bool]) -> list[Work]:
        """Forget records that do not run now; gives them."""
        dropped: list[Work] = []
        for key, lane in list(self._lanes.items()):
            dropped += [work for work in lane.behind if unwanted(work)]
            lane.behind = deque(work for work in lane.behind if not unwanted(work))
            if not lane.head.running and unwanted(lane.head):
                dropped.append(lane.head)
                self._ready.pop(lane.head, None)
                self._postponed.pop(lane.head, None)
                self._advance(key)
        return dropped

    @property
    def next_due_ms(self) -> int | None:
        """When the next postponed record is to begin."""
        while self._due and self._due[0][2] not in self._postponed:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    @property
    def has_ready(self) -> bool:
        """A record could begin at once."""
        return bool(self._ready)

    def _advance(self, key: Hashable) -> None:
        lane = self._lanes[key]
        if lane.behind:
            lane.head = lane.behind.popleft()
            self._ready[lane.head] = None
        else:
            del self._lanes[key]

    def _wake(self, now_ms: int) -> None:
        """Postponed records whose time has come go first: they have waited longest."""
        while (due := self.next_due_ms) is not None and due <= now_ms:
            work = heappop(self._due)[2]
            del self._postponed[work]
            self._ready[work] = None
            self._ready.move_to_end(work, last=False)
