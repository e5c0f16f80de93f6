"""The controller of this node: runs the core while this node leads consensus, and answers ControllerService.

One reign at a time: it begins with a barrier, so that every decision is made on an image that has all that was
committed before, and ends with the leadership. One loop submits what the core decides; requests submit their own
commands beside it (compare-and-set keeps them apart). Loop thread only.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from penstock.internal.v1 import metadata_pb2 as metadata
from penstock.node.clock import monotonic_ms, occasion, wall_ms
from penstock.node.config import Limits
from penstock.node.controller.admission import AddVoter, NoteVoter, RemoveVoter, next_step
from penstock.node.controller.core import ControllerCore, Timing
from penstock.node.controller.reign import TICK_S, Reign
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.cluster import Applied
from penstock.raft.command import decode_result, encode
from penstock.raft.errors import OutcomeUnknown, SubmitRefused
from penstock.raft.image import MetadataImage
from penstock.raft.view import View
from penstock.v1 import common_pb2

_log = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 5.0
"""Of the controller's own commands and barriers."""
ADMISSION_INTERVAL_S = 1.0
FAULT_PAUSE_S = 1.0
"""After a fault of the controller itself, before it goes on."""


class Consensus(Protocol):
    """What the controller needs of RaftNode."""

    on_leadership: list[Callable[[int | None, int], None]]

    @property
    def is_leader(self) -> bool:
        """Whether this node leads."""
        ...

    @property
    def term(self) -> int:
        """The present term."""
        ...

    @property
    def cluster_id(self) -> str:
        """The cluster that the journal belongs to."""
        ...

    @property
    def voters(self) -> Mapping[int, str]:
        """Peer addresses of the voters."""
        ...

    @property
    def voter_journals(self) -> Mapping[int, bytes]:
        """Ids of the voters' journals, as the configuration names them; empty for a founding one."""
        ...

    async def submit(self, command: bytes, timeout_s: float) -> Applied:
        """Replicate and apply. Raises SubmitRefused, OutcomeUnknown."""
        ...

    async def barrier(self, timeout_s: float) -> int:
        """Apply all that is committed."""
        ...

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Ask another voter to take over."""
        ...

    async def add_voter(self, node_id: int, address: str, journal_id: bytes, timeout_s: float) -> int:
        """Make a caught-up observer a voter."""
        ...

    async def remove_voter(self, node_id: int, timeout_s: float) -> int:
        """Make a voter an observer."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command that was applied (or refused by `apply`), and the image that has it."""

    index: int
    result: metadata.MetadataResult
    image: MetadataImage


class ControllerShell:
    """Lifecycle and decisions; `requests.Controller` adds what other nodes ask for."""

    def __init__(
        self,
        raft: Consensus,
        view: View,
        limits: Limits,
        refuses: Callable[[int], Awaitable[bool]],
        rng: random.Random | None = None,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        """`refuses`: whether nobody listens at a node's peer address. `rng`: for topic ids and placement."""
        self.raft = raft
        self.view = view
        self.limits = limits
        self.rng = rng or random.SystemRandom()
        self.clock = clock
        self.wall_clock = wall_ms
        self._timing = Timing(limits.session_timeout_ms, limits.heartbeat_interval_ms, limits.preferred_leader_delay_ms)
        self._refuses = refuses
        self._reign: Reign | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def is_active(self) -> bool:
        """Whether this node is the controller, as far as it knows, and ready."""
        return self._reign is not None and self._reign.core is not None and self.raft.is_leader

    async def start(self) -> None:
        """Begin to rule whenever this node leads consensus."""
        self.raft.on_leadership.append(self._on_leadership)
        self._unsubscribe = self.view.subscribe(lambda _old, _new: self.wake())
        self._on_leadership(None, self.raft.term)

    async def stop(self) -> None:
        """Stop ruling; another voter takes over at once where one is fit, so that nobody has to find out."""
        self._unsubscribe()
        if self._on_leadership in self.raft.on_leadership:
            self.raft.on_leadership.remove(self._on_leadership)
        tasks = self._end_reign()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.raft.is_leader:
            with contextlib.suppress(SubmitRefused, TimeoutError):
                await self.raft.transfer_leadership()

    def wake(self) -> None:
        """Something changed: decide again."""
        if self._reign is not None:
            self._reign.wake.set()

    def active(self) -> ControllerCore:
        """Return the core. Raises NO_CONTROLLER where this node is not the controller."""
        reign = self._reign
        if reign is None or reign.core is None or not self.raft.is_leader:
            raise PenstockError(Reason.NO_CONTROLLER, "this node is not the controller")
        return reign.core

    async def submit(self, command: metadata.MetadataCommand, timeout_s: float) -> Outcome:
        """Submit a command. Raises NO_CONTROLLER where it was surely not applied, OUTCOME_UNKNOWN where it may be."""
        try:
            applied = await self.raft.submit(encode(command), timeout_s)
        except SubmitRefused as error:
            raise PenstockError(Reason.NO_CONTROLLER, f"not applied: {error}") from error
        except OutcomeUnknown as error:
            raise PenstockError(Reason.OUTCOME_UNKNOWN, str(error)) from error
        try:
            image = await self.view.wait_for(applied.index, timeout_s)
        except TimeoutError as error:
            raise PenstockError(Reason.OUTCOME_UNKNOWN, "applied, and not shown in time") from error
        return Outcome(applied.index, decode_result(applied.result), image)

    def probe(self, node_id: int) -> None:
        """Look at a node's address, unless that is being done."""
        reign = self._reign
        if reign is not None and reign.core is not None and reign.core.may_probe(node_id):
            reign.spawn(self._probe(reign, node_id))

    # ---- inside

    def _on_leadership(self, leader: int | None, term: int) -> None:
        del leader
        if self._reign is not None and (self._reign.term != term or not self.raft.is_leader):
            _log.info("no longer the controller")
            self._end_reign()
        if self._reign is None and self.raft.is_leader:
            self._reign = Reign(term, self._loop_ms)
            self._reign.spawn(self._rule(self._reign))

    def _end_reign(self) -> list["asyncio.Task[None]"]:
        reign, self._reign = self._reign, None
        if reign is None:
            return []
        tasks = list(reign.tasks)
        reign.end()
        return tasks

    async def _rule(self, reign: Reign) -> None:
        await self._take_over(reign)
        core = reign.core = ControllerCore(self.raft.cluster_id, self._timing, self.view.image, self.clock())
        _log.info("controller since term %d, metadata version %d", reign.term, self.view.image.version)
        reign.spawn(reign.tick())
        reign.spawn(self._admit_voters(reign))
        while reign is self._reign:
            try:
                await self._round(reign, core)
            except Exception:  # noqa: BLE001  a controller that answers, yet decides nothing, would be worst
                _log.exception("the controller could not decide; it tries again")
                await asyncio.sleep(FAULT_PAUSE_S)

    async def _round(self, reign: Reign, core: ControllerCore) -> None:
        """Decide once and submit that; wait for the next occasion where there was nothing to do."""
        pause_ms = reign.take_pause_ms()
        if pause_ms > self._timing.heartbeat_interval_ms:
            _log.warning("this process stood still for %d ms; the nodes' sessions are prolonged", pause_ms)
            core.on_pause(pause_ms)
            await asyncio.sleep(TICK_S)  # what has arrived meanwhile is read first
        reign.wake.clear()
        decision = core.decide(self.view.image, self.clock())
        for node_id in decision.probes:
            reign.spawn(self._probe(reign, node_id))
        if decision.commands and await self._submit_all(decision.commands):
            return  # decided on the image before: look again at once
        await occasion(reign.wake, TICK_S)

    def _loop_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    async def _take_over(self, reign: Reign) -> None:
        while True:
            try:
                await self.raft.barrier(COMMAND_TIMEOUT_S)
            except (SubmitRefused, OutcomeUnknown) as error:
                _log.info("taking over in term %d waits: %s", reign.term, error)
                await asyncio.sleep(TICK_S)
            else:
                return

    async def _submit_all(self, commands: list[metadata.MetadataCommand]) -> bool:
        """Submit in order; False as soon as one is not simply applied."""
        for command in commands:
            kind = command.WhichOneof("kind")
            try:
                outcome = await self.submit(command, COMMAND_TIMEOUT_S)
            except PenstockError as error:
                _log.warning("%s: %s", kind, error)
                return False
            refusals = _refusals(outcome.result)
            if refusals:
                _log.info("%s: %d refused, the first: %s", kind, len(refusals), refusals[0])
                return False
            if kind == "fence_node":
                _log.warning(
                    "node %d is fenced: it is silent, refuses connections, or leaves", command.fence_node.node_id
                )
            if kind == "note_store_state":
                noted = command.note_store_state
                state = common_pb2.StoreState.Name(noted.state).removeprefix("STORE_STATE_")  # type: ignore[arg-type]
                _log.warning("the store of node %d is %s", noted.node_id, state.replace("_", " ").lower())
        return True

    async def _probe(self, reign: Reign, node_id: int) -> None:
        refused = False
        try:
            refused = await self._refuses(node_id)
        finally:
            if reign.core is not None:
                reign.core.on_probed(node_id, self.clock(), refused=refused)
                reign.wake.set()

    async def _admit_voters(self, reign: Reign) -> None:
        while reign is self._reign:
            try:
                await self._admit_one()
            except (SubmitRefused, OutcomeUnknown, PenstockError) as error:
                _log.info("admitting a voter waits: %s", error)
            await asyncio.sleep(ADMISSION_INTERVAL_S)

    async def _admit_one(self) -> None:
        step = next_step(self.view.image, self.raft.voter_journals)
        if isinstance(step, RemoveVoter):
            _log.warning("voter %d has a new journal: it is removed, to be added again", step.node_id)
            await self.raft.remove_voter(step.node_id, COMMAND_TIMEOUT_S)
        elif isinstance(step, AddVoter):
            await self.raft.add_voter(step.node_id, step.address, step.journal_id, COMMAND_TIMEOUT_S)
        elif isinstance(step, NoteVoter):
            await self.raft.barrier(COMMAND_TIMEOUT_S)  # the change that this log has is committed now, or gone from it
            if next_step(self.view.image, self.raft.voter_journals) != step:
                return
        if isinstance(step, AddVoter | NoteVoter):
            await self.submit(step.command(), COMMAND_TIMEOUT_S)
            _log.warning("voter %d is admitted with its new journal", step.node_id)


def _refusals(result: metadata.MetadataResult) -> list[str]:
    whole = [result.detail] if result.refusal else []
    return whole + [change.detail for change in result.changes if change.refusal]
