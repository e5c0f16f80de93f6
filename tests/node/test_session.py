"""The session's shell against a controller that answers as told, on a clock that stands still until moved."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import metadata_pb2
from penstock.node.config import Endpoint, Limits, NodeConfig
from penstock.node.session import Session, registration
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.view import View
from penstock.storage import StoreIdentity
from penstock.v1 import common_pb2 as common
from tests.raft.metadata_world import World

NO_CONTROLLER = PenstockError(Reason.NO_CONTROLLER, "as told")


class FakeController:
    """Registers in a World; other answers as told, in order."""

    def __init__(self, view: View) -> None:
        self.world = World.with_nodes(0)
        self.view = view
        self.calls: list[str] = []
        self.failures: deque[Exception] = deque()
        self.known = True
        self.leaderships = 0
        self.hold_view = False
        self.start_ids: list[bytes] = []
        self.heartbeats: list[pb.HeartbeatRequest] = []
        self.cluster_ms = 0

    def show(self) -> None:
        self.view.publish(self.world.image)

    async def register(self, registration: metadata_pb2.Registration, timeout_s: float) -> pb.RegisterResponse:
        self.calls.append("register")
        if self.failures:
            raise self.failures.popleft()
        self.start_ids = list(registration.start_ids)
        kept = self.world.register(registration.node_id).kept_places
        self.known = True
        if not self.hold_view:
            self.show()
        return pb.RegisterResponse(node_epoch=self.world.index, kept_places=kept)

    async def heartbeat(self, request: pb.HeartbeatRequest, timeout_s: float) -> pb.HeartbeatResponse:
        self.calls.append("drain" if request.draining else "heartbeat")
        if self.failures:
            raise self.failures.popleft()
        self.heartbeats.append(request)
        status = pb.HEARTBEAT_STATUS_OK if self.known else pb.HEARTBEAT_STATUS_REGISTER
        leaderships, self.leaderships = self.leaderships, max(0, self.leaderships - 1)
        return pb.HeartbeatResponse(status=status, leaderships=leaderships, wall_time_ms=self.cluster_ms)

    async def leave(self, node_id: int, node_epoch: int, timeout_s: float) -> None:
        self.calls.append("leave")
        if self.failures:
            raise self.failures.popleft()


class Stand:
    """A session, its controller and its clock."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.view = View()
        self.controller = FakeController(self.view)
        self.changes: list[tuple[int | None, bool]] = []
        self.accepted: list[bytes] = []
        self.cluster_times: list[tuple[int, int]] = []
        self.store_state: common.StoreState.ValueType = common.STORE_STATE_OK
        self.session = Session(
            lambda: metadata_pb2.Registration(node_id=1, start_ids=[b"old", b"new"]),
            self.controller,
            self.view,
            Limits(),
            lambda: self.now_ms,
        )
        self.session.wall_clock = lambda: 1_000_000 + self.now_ms
        self.session.store_state = lambda: self.store_state
        self.session.on_cluster_time.append(lambda cluster_ms, at_ms: self.cluster_times.append((cluster_ms, at_ms)))
        self.session.on_change.append(lambda node_epoch, serving: self.changes.append((node_epoch, serving)))
        self.session.on_accepted.append(self.accepted.append)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  conditions of any kind, some of a fake clock
                await asyncio.sleep(0.001)

    def pass_time(self, milliseconds: int) -> None:
        """Move the clock, and have the session look at it."""
        self.now_ms += milliseconds
        self.session._changed.set()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    yield stand
    await stand.session.stop()


async def test_it_registers_and_serves_once_the_view_has_it(stand: Stand) -> None:
    stand.controller.hold_view = True
    await stand.session.start()
    await stand.until(lambda: stand.session.node_epoch is not None)
    assert not stand.session.serving
    stand.controller.show()
    await stand.until(lambda: stand.session.serving)
    node_epoch = stand.session.node_epoch
    assert stand.changes == [(node_epoch, False), (node_epoch, True)]


async def test_after_an_answered_registration_the_store_may_forget_the_starts_before(stand: Stand) -> None:
    stand.controller.failures.append(NO_CONTROLLER)
    await stand.session.start()
    await stand.until(lambda: stand.controller.calls == ["register"])
    stand.pass_time(50)
    await stand.until(lambda: stand.session.serving)
    assert stand.accepted == [b"new"]
    assert stand.controller.start_ids == [b"old", b"new"]


async def test_serving_ends_with_the_session_even_if_nothing_else_happens(stand: Stand) -> None:
    await stand.session.start()
    await stand.until(lambda: stand.session.serving)
    stand.controller.failures.extend([NO_CONTROLLER] * 100)
    stand.now_ms += 1_500
    assert not stand.session.serving
    stand.session._changed.set()
    await stand.until(lambda: stand.changes[-1] == (stand.session.node_epoch, False))
    stand.controller.failures.clear()
    stand.pass_time(50)
    await stand.until(lambda: stand.session.serving)
    assert "register" not in stand.controller.calls[1:]


async def test_it_registers_again_when_told_so(stand: Stand) -> None:
    await stand.session.start()
    await stand.until(lambda: stand.session.serving)
    first = stand.session.node_epoch
    stand.controller.known = False
    stand.pass_time(300)
    await stand.until(lambda: stand.session.serving and stand.session.node_epoch != first)
    assert stand.controller.calls == ["register", "heartbeat", "register"]


async def test_a_refusal_is_logged_once_and_asked_again_less_often(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = PenstockError(Reason.NOT_SERVING, "another node 1 is alive")
    stand.controller.failures.extend([refusal, refusal])
    await stand.session.start()
    await stand.until(lambda: stand.controller.calls == ["register"])
    stand.pass_time(999)
    await stand.until(lambda: not stand.session._core.is_waiting)
    assert stand.controller.calls == ["register"]
    for calls in (2, 3):
        stand.pass_time(1_000)
        await stand.until(lambda calls=calls: len(stand.controller.calls) == calls)  # type: ignore[misc]
    await stand.until(lambda: stand.session.serving)
    assert caplog.text.count("another node 1 is alive") == 1


async def test_a_fault_of_the_controllers_answer_does_not_end_the_session(stand: Stand) -> None:
    stand.controller.failures.append(RuntimeError("a bug"))
    await stand.session.start()
    await stand.until(lambda: stand.controller.calls == ["register"])
    stand.pass_time(50)
    await stand.until(lambda: stand.session.serving)


async def test_a_listeners_fault_does_not_end_the_session(stand: Stand) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    stand.session.on_change.insert(0, fails)
    await stand.session.start()
    await stand.until(lambda: stand.session.serving and len(stand.changes) > 0)


async def test_draining_waits_until_all_leaderships_have_moved(stand: Stand) -> None:
    await stand.session.start()
    await stand.until(lambda: stand.session.serving)
    stand.controller.leaderships = 3
    assert await stand.session.drain(60.0)
    assert stand.controller.calls.count("drain") == 4
    assert stand.session.serving
    await stand.session.leave(1.0)
    assert stand.controller.calls[-1] == "leave"
    assert stand.changes[-1] == (stand.session.node_epoch, False)


async def test_draining_gives_up_in_time_and_leaving_never_fails(stand: Stand) -> None:
    await stand.session.start()
    await stand.until(lambda: stand.session.serving)
    stand.controller.leaderships = 10_000
    assert not await stand.session.drain(0.02)
    stand.controller.failures.append(NO_CONTROLLER)
    await stand.session.leave(1.0)


async def test_leaving_before_any_registration_says_nothing(stand: Stand) -> None:
    await stand.session.leave(1.0)
    assert stand.controller.calls == []


class Journal(NamedTuple):
    journal_id: bytes = b"j" * 16
    may_vote: bool = True


@pytest.mark.parametrize(
    ("word", "durability"),
    [
        ("commit", common.DURABILITY_COMMIT),
        ("interval", common.DURABILITY_INTERVAL),
        ("os", common.DURABILITY_OS),
    ],
)
def test_a_registration_says_who_the_node_is(word: str, durability: int) -> None:
    config = NodeConfig(
        node_id=2,
        data_dir=Path("data"),
        client_listen=Endpoint("127.0.0.1", 1),
        peer_listen=Endpoint("127.0.0.1", 2),
        client_advertise=Endpoint("a.example", 3),
        peer_advertise=Endpoint("b.example", 4),
        voters={},
        rack="r",
        durability=word,
    )
    said = registration(config, StoreIdentity("c1", 2, b"s" * 16), (b"1" * 16, b"2" * 16), Journal(), clean=True)
    world = World.with_nodes(0)
    assert said.durability == durability
    assert (said.client_address.host, said.client_address.port, said.peer_address.port) == ("a.example", 3, 4)
    assert (said.clean, said.may_vote, said.rack) == (True, True, "r")
    assert world.do(register_node=metadata_pb2.RegisterNode(registration=said)).refusal == 0


async def test_heartbeats_tell_the_store_and_the_clock_at_once_when_it_changed(stand: Stand) -> None:
    await stand.session.start()
    await stand.until(lambda: stand.session.serving)
    stand.pass_time(300)
    await stand.until(lambda: len(stand.controller.heartbeats) == 1)
    stand.store_state = common.STORE_STATE_FULL
    stand.controller.cluster_ms = 777
    stand.now_ms += 5
    stand.session.tell()
    await stand.until(lambda: len(stand.controller.heartbeats) == 2)
    told = [(beat.store_state, beat.wall_time_ms) for beat in stand.controller.heartbeats]
    assert told == [(1, 1_000_300), (3, 1_000_305)]
    await stand.until(lambda: stand.cluster_times == [(777, 305)])
