"""The way of the groups' changes to the metadata: one request at a time; what gathers meanwhile is in the next.

Loop thread only.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from penstock.internal.v1 import metadata_pb2
from penstock.node.group.events import Outputs
from penstock.node.group.membership import GroupCore
from penstock.node.group.seat import Seat
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Outcome

_log = logging.getLogger(__name__)

CHANGES_PER_REQUEST = 500
BYTES_PER_REQUEST = 1024 * 1024
"""From this size on what is left waits for the next request."""

Result = metadata_pb2.ChangeResult
_Asked = list[tuple[GroupCore, metadata_pb2.GroupChange]]


class Proposing:
    """`perform`: what the cores say after an answer."""

    def __init__(
        self, seat: Seat, cores: Mapping[str, GroupCore], perform: Callable[[GroupCore, Outputs], None]
    ) -> None:
        self._seat = seat
        self._cores = cores
        self._perform = perform
        self._wanted: dict[str, None] = {}
        self._due = asyncio.Event()

    def want(self, group_id: str) -> None:
        """A group may have a change to propose."""
        self._wanted[group_id] = None
        self._due.set()

    async def run(self) -> None:
        """Propose until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            asked = self._gather()
            if asked:
                await self._propose(asked)

    def _gather(self) -> _Asked:
        """Ask the groups in turn. One that has nothing to propose says when to ask again, or that something came."""
        asked: _Asked = []
        size = 0
        now_ms, wall_ms = self._seat.now_ms(), self._seat.wall_ms()
        while self._wanted and len(asked) < CHANGES_PER_REQUEST and size < BYTES_PER_REQUEST:
            group_id = next(iter(self._wanted))
            del self._wanted[group_id]
            core = self._cores.get(group_id)
            change = None if core is None else core.decide(now_ms, wall_ms)
            if core is not None and change is not None:
                asked.append((core, change))
                size += change.ByteSize()
        if self._wanted:
            self._due.set()
        return asked

    async def _propose(self, asked: _Asked) -> None:
        results: Sequence[Result | None] = [None] * len(asked)
        refused: PenstockError | None = None
        try:
            results = await self._seat.propose([change for _, change in asked])
        except PenstockError as error:
            _log.info("changes of %d groups are not made: %s", len(asked), error)
            refused = error if error.outcome is Outcome.DEFINITE else None
        except TimeoutError:
            _log.info("changes of %d groups have not been answered in time", len(asked))
        except Exception:  # noqa: BLE001  a coordinator that answers, yet changes nothing any more, would be worst
            _log.exception("changes of %d groups could not be proposed", len(asked))
        for (core, change), result in zip(asked, results, strict=True):
            if result is not None and result.refusal:
                _log.info("a change of group %r is refused: %s", change.group_id, result.detail)
            outputs = core.on_answer(result, self._seat.now_ms())
            self._perform(core, outputs if refused is None else [*outputs, *core.on_refused(refused)])
