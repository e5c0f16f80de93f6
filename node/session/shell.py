"""The shell of a session: sends what the core wants sent, watches the view, tells others what changed. Loop thread."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Protocol

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2
from penstock.node.clock import monotonic_ms, occasion, wall_ms
from penstock.node.config import Limits
from penstock.node.session.core import Accepted, InView, Output, SendHeartbeat, SendRegister, SessionCore
from penstock.node.session.registration import RegistrationSource
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import MetadataImage
from penstock.raft.view import View
from penstock.v1 import common_pb2

_log = logging.getLogger(__name__)

_NOT_HEARD = {Reason.NO_CONTROLLER, Reason.OUTCOME_UNKNOWN, Reason.OVERLOADED, Reason.INTERNAL}


class ControllerLink(Protocol):
    """The calls of ControllerClient that a session makes."""

    async def register(self, registration: metadata_pb2.Registration, timeout_s: float) -> controller.RegisterResponse:
        """Register."""
        ...

    async def heartbeat(self, request: controller.HeartbeatRequest, timeout_s: float) -> controller.HeartbeatResponse:
        """Say that this node lives."""
        ...

    async def leave(self, node_id: int, node_epoch: int, timeout_s: float) -> None:
        """Say that this node serves no longer."""
        ...


class Session:
    """Started once the view and the peers' addresses are there; callbacks run on the loop."""

    on_change: list[Callable[[int | None, bool], None]]
    """(node_epoch, serving), at each change of either."""
    on_accepted: list[Callable[[bytes], None]]
    """(start id that the answered registration named as the present one): the store may forget the ones before it."""
    store_state: Callable[[], "common_pb2.StoreState.ValueType"]
    """What heartbeats tell of the store; see `tell`."""
    on_cluster_time: list[Callable[[int, int], None]]
    """(median of the nodes' wall clocks, monotonic ms of that moment), as heartbeats are answered."""

    def __init__(
        self,
        registration: RegistrationSource,
        controller: ControllerLink,
        view: View,
        limits: Limits,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self.on_change = []
        self.on_accepted = []
        self.on_cluster_time = []
        self._registration = registration
        self._node_id = registration().node_id
        self._controller = controller
        self._view = view
        self._limits = limits
        self._clock = clock
        self.wall_clock = wall_ms
        self.store_state = lambda: common_pb2.STORE_STATE_UNSPECIFIED
        self._core = SessionCore(limits.session_timeout_ms, limits.heartbeat_interval_ms)
        self._announced: tuple[int | None, bool] = (None, False)
        self._told = ""
        self._changed = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def node_epoch(self) -> int | None:
        """Of the last answered registration."""
        return self._core.node_epoch

    @property
    def serving(self) -> bool:
        """Whether this node may lead, follow and answer at this moment."""
        return self._core.is_serving(self._clock())

    async def start(self) -> None:
        """Begin to register."""
        self._unsubscribe = self._view.subscribe(self._on_view)
        self._on_view(self._view.image, self._view.image)
        self._spawn(self._run())

    def tell(self) -> None:
        """Something that heartbeats tell has changed: send one now."""
        self._core.hurry(self._clock())
        self._changed.set()

    async def stop(self) -> None:
        """Stop without a word: the controller finds out by itself."""
        self._unsubscribe()
        self._core.leave()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._announce()

    async def drain(self, timeout_s: float) -> bool:
        """Have this node's leaderships moved; False if some are left after the time (or cannot move)."""
        self._core.drain(self._clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._core.leaderships != 0:
                    self._core.hurry(self._clock())
                    self._changed.set()
                    await asyncio.sleep(self._limits.heartbeat_interval_ms / 4000)
        return self._core.leaderships == 0

    async def leave(self, timeout_s: float) -> None:
        """Say goodbye: the controller fences this node now. Best effort."""
        node_epoch = self._core.node_epoch
        self._core.leave()
        self._changed.set()
        self._announce()
        if node_epoch is None:
            return
        try:
            await self._controller.leave(self._node_id, node_epoch, timeout_s)
        except PenstockError as error:
            _log.info("the controller was not told that this node stops: %s", error)

    # ---- inside

    async def _run(self) -> None:
        while True:
            now_ms = self._clock()
            self._changed.clear()
            for output in self._core.tick(now_ms):
                self._spawn(self._perform(output))
            self._announce()
            wake_ms = self._core.next_wake_ms(now_ms)
            pause_s = None if wake_ms is None else max(0, wake_ms - now_ms) / 1000
            await occasion(self._changed, pause_s)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _perform(self, output: Output) -> None:
        try:
            if isinstance(output, SendRegister):
                await self._register()
            elif isinstance(output, SendHeartbeat):
                await self._heartbeat(output)
        except PenstockError as error:
            self._core.on_failure(self._clock(), refused=self._is_refusal(error))
        except Exception:  # noqa: BLE001  a session must never end by itself
            _log.exception("contact with the controller failed")
            self._core.on_failure(self._clock())
        self._changed.set()

    def _is_refusal(self, error: PenstockError) -> bool:
        """Whether the controller has heard and said no; that is logged, once for each answer."""
        refused = error.reason not in _NOT_HEARD
        if refused and str(error) != self._told:
            _log.error("the controller refuses this node: %s", error)
        self._told = str(error) if refused else self._told
        return refused

    async def _register(self) -> None:
        registration = self._registration()
        response = await self._controller.register(registration, self._limits.session_timeout_ms / 1000)
        places = "" if response.kept_places else " as a new store, in no ISR"
        _log.info("registered with node_epoch %d%s", response.node_epoch, places)
        for output in self._core.on_registered(response.node_epoch, self._clock()):
            if isinstance(output, Accepted):
                self._call(self.on_accepted, registration.start_ids[-1])

    async def _heartbeat(self, output: SendHeartbeat) -> None:
        request = controller.HeartbeatRequest(
            node_id=self._node_id,
            node_epoch=output.node_epoch,
            draining=output.draining,
            store_state=self.store_state(),
            wall_time_ms=self.wall_clock(),
        )
        sent_ms = self._clock()
        response = await self._controller.heartbeat(request, 2 * self._limits.heartbeat_interval_ms / 1000)
        if response.wall_time_ms:
            self._call(self.on_cluster_time, response.wall_time_ms, (sent_ms + self._clock()) // 2)
        known = response.status == controller.HEARTBEAT_STATUS_OK
        if not known:
            _log.warning("the controller does not count this node as registered any more: registering again")
        self._core.on_heartbeat(self._clock(), response.leaderships, known=known)

    def _on_view(self, _: MetadataImage, image: MetadataImage) -> None:
        node = image.nodes.get(self._node_id)
        self._core.on_view(None if node is None else InView(node.node_epoch, node.fenced), self._clock())
        self._changed.set()
        self._announce()

    def _announce(self) -> None:
        present = (self.node_epoch, self.serving)
        if present != self._announced:
            self._announced = present
            self._call(self.on_change, *present)

    def _call(self, callbacks: list[Callable[..., None]], *arguments: object) -> None:
        for callback in list(callbacks):
            try:
                callback(*arguments)
            except Exception:  # noqa: BLE001  one listener's fault must not end the session
                _log.exception("a listener of the session failed")
