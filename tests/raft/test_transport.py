"""The stream between two nodes: who may open one, in which order messages arrive, what a new stream does to the old."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.internal.v1 import raft_pb2, raft_pb2_grpc
from penstock.raft import messages, transport
from penstock.raft.journal import Entry, Identity
from penstock.raft.machine import Connected, Disconnected, Event, Received
from penstock.raft.snapshot import Chunk
from penstock.raft.transport import Inbox, PeerTransport, RaftServicer
from tests.raft.members import until


class End:
    """One node's transport and listener."""

    def __init__(self, node_id: int, cluster_id: str = "c") -> None:
        self.events: list[Event] = []
        self.inbox = Inbox(self.events.extend)
        identity = Identity(cluster_id, node_id, bytes([node_id]) * 16)
        self.transport = PeerTransport(identity, {}, None, self.inbox, random.Random(node_id))
        self.servicer = RaftServicer()
        self.servicer.transport = self.transport
        self.server = grpc.aio.server()
        raft_pb2_grpc.add_RaftServiceServicer_to_server(self.servicer, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def numbers(self) -> list[int]:
        return [event.message["next_node_idx"] for event in self.events if isinstance(event, Received)]

    async def stop(self) -> None:
        await self.transport.stop()
        await self.server.stop(None)


@asynccontextmanager
async def ends(*nodes: End) -> AsyncIterator[tuple[End, ...]]:
    for node in nodes:
        await node.server.start()
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.stop()


def numbered(number: int) -> dict[str, Any]:
    return {"type": "next_node_idx", "term": 1, "next_node_idx": number, "success": True, "reset": False}


async def test_messages_arrive_in_order_both_ways() -> None:
    async with ends(End(1), End(2)) as (one, two):
        one.transport.set_voters({2: two.address})
        two.transport.set_voters({1: one.address})
        await until(lambda: Connected(2) in one.events and Connected(1) in two.events)
        one.transport.post([(2, numbered(n)) for n in range(1, 500)])
        two.transport.post([(1, numbered(n)) for n in range(1, 500)])
        await until(lambda: len(two.numbers()) == 499 and len(one.numbers()) == 499)
        assert one.numbers() == two.numbers() == list(range(1, 500))


async def test_an_observer_is_reached_over_the_stream_that_it_dialed() -> None:
    async with ends(End(1), End(9)) as (voter, observer):
        observer.transport.set_voters({1: voter.address})
        await until(lambda: Connected(9) in voter.events and Connected(1) in observer.events)
        voter.transport.post([(9, numbered(5))])
        await until(lambda: observer.numbers() == [5])
        await observer.transport.stop()
        await until(lambda: Disconnected(9) in voter.events)


async def test_nothing_goes_to_a_peer_that_is_not_connected() -> None:
    async with ends(End(1)) as (one,):
        assert not one.transport.has_room(2)
        one.transport.post([(2, numbered(1))])


async def test_a_full_queue_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "QUEUE_BYTES", 100)
    queue = transport.SendQueue()
    assert queue.has_room
    queue.count(100)
    assert not queue.has_room


async def test_a_restarted_peer_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = End(1), End(2)
    async with ends(one, two):
        one.transport.set_voters({2: two.address})
        await until(lambda: Connected(2) in one.events)
        await two.server.stop(None)
        await until(lambda: Disconnected(2) in one.events)
        one.events.clear()
        again = End(2)
        again.server.add_insecure_port(two.address)
        async with ends(again):
            await until(lambda: Connected(2) in one.events)


async def test_a_link_outlives_whatever_ends_its_stream() -> None:
    """A peer that cancels, or sends nonsense, is dialed again."""
    calls = 0

    class Rude(raft_pb2_grpc.RaftServiceServicer):
        async def Exchange(self, _: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802  gRPC's
            nonlocal calls
            calls += 1
            if calls == 1:
                await context.abort(grpc.StatusCode.CANCELLED, "go away")
            await context.read()
            hello = raft_pb2.RaftHello(protocol=1, cluster_id="c", from_node=2, to_node=1)
            await context.write(raft_pb2.ExchangeResponse(hello=hello))
            if calls == 2:
                await context.abort(grpc.StatusCode.CANCELLED, "go away")
            await context.write(raft_pb2.ExchangeResponse(messages=[raft_pb2.RaftMessage(term=1)]))

    one = End(1)
    server = grpc.aio.server()
    raft_pb2_grpc.add_RaftServiceServicer_to_server(Rude(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with ends(one):
        one.transport.set_voters({2: f"127.0.0.1:{port}"})
        await until(lambda: calls >= 5)
    await server.stop(None)


async def test_a_new_stream_ends_the_old_one_and_its_messages() -> None:
    async with ends(End(1)) as (one,), grpc.aio.insecure_channel(one.address) as channel:
        stub = raft_pb2_grpc.RaftServiceStub(channel)
        hello = raft_pb2.ExchangeRequest(
            hello=raft_pb2.RaftHello(protocol=1, cluster_id="c", from_node=2, to_node=1, journal_id=b"x")
        )
        calls = []
        for _ in range(2):
            call: Any = stub.Exchange()
            await call.write(hello)
            await call.read()
            calls.append(call)
        assert await calls[0].read() is grpc.aio.EOF
        await calls[1].write(raft_pb2.ExchangeRequest(messages=[messages.encode(numbered(7))]))
        await until(lambda: one.numbers() == [7])
        assert one.events[0] == Connected(2)
        assert one.events.index(Disconnected(2)) < len(one.events) - 1 - one.events[::-1].index(Connected(2))
        calls[1].cancel()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": 9}, "versions differ"),
        ({"cluster_id": "other"}, "cluster 'other'"),
        ({"to_node": 3}, "node 3 was meant"),
        ({"from_node": 1}, "not expected"),
        ({"from_node": 0}, "not expected"),
    ],
)
async def test_a_wrong_greeting_is_refused(change: dict[str, Any], said: str) -> None:
    async with ends(End(1)) as (one,), grpc.aio.insecure_channel(one.address) as channel:
        fields: dict[str, Any] = {
            "protocol": 1,
            "cluster_id": "c",
            "from_node": 2,
            "to_node": 1,
            "journal_id": b"x",
        } | change
        call: Any = raft_pb2_grpc.RaftServiceStub(channel).Exchange()
        await call.write(raft_pb2.ExchangeRequest(hello=raft_pb2.RaftHello(**fields)))
        assert await call.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert said in await call.details()
        assert one.events == []


async def test_a_message_of_no_known_kind_ends_the_stream() -> None:
    async with ends(End(1)) as (one,), grpc.aio.insecure_channel(one.address) as channel:
        call: Any = raft_pb2_grpc.RaftServiceStub(channel).Exchange()
        hello = raft_pb2.RaftHello(protocol=1, cluster_id="c", from_node=2, to_node=1)
        await call.write(raft_pb2.ExchangeRequest(hello=hello))
        await call.read()
        await call.write(raft_pb2.ExchangeRequest(messages=[raft_pb2.RaftMessage(term=1)]))
        assert await call.code() == grpc.StatusCode.ABORTED


async def test_reading_pauses_while_the_inbox_is_full() -> None:
    async with ends(End(1), End(2)) as (one, two):
        one.transport.set_voters({2: two.address})
        await until(lambda: Connected(2) in one.events)
        two.inbox.room.clear()
        for number in range(1, 6):
            one.transport.post([(2, numbered(number))])
            await asyncio.sleep(0)
        await until(lambda: len(two.numbers()) >= 1)
        two.inbox.room.set()
        await until(lambda: two.numbers() == [1, 2, 3, 4, 5])


class ManualTimeouts:
    """Stands for asyncio.timeout: time passes for it when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._armed: dict[asyncio.Timeout, float] = {}

    @asynccontextmanager
    async def __call__(self, seconds: float) -> AsyncIterator[None]:
        async with asyncio.timeout(None) as timeout:
            self._armed[timeout] = self.now + seconds
            try:
                yield
            finally:
                del self._armed[timeout]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timeout, due in self._armed.items():
            if due <= self.now:
                timeout.reschedule(0.0)


async def test_idle_streams_carry_keepalives_and_dead_ones_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = ManualTimeouts()
    monkeypatch.setattr(transport, "asyncio", SimpleNamespace(**vars(asyncio) | {"timeout": timeouts}))
    monkeypatch.setattr(transport, "KEEPALIVE_S", 0.01)
    heard: Counter[int] = Counter()
    take = PeerTransport.take

    async def counted(self: PeerTransport, peer: int, received: Any) -> None:
        heard[peer] += 1
        await take(self, peer, received)

    monkeypatch.setattr(PeerTransport, "take", counted)
    async with ends(End(1), End(2)) as (one, two):
        one.transport.set_voters({2: two.address})
        await until(lambda: Connected(2) in one.events)
        for _ in range(4):  # more than twice DEAD_S: only keepalives keep it open
            heard.clear()
            await until(lambda: heard[1] > 1 and heard[2] > 1)
            timeouts.advance(0.6 * transport.DEAD_S)
        heard.clear()
        await until(lambda: heard[1] > 1 and heard[2] > 1)
        assert (one.events, two.events) == ([Connected(2)], [Connected(1)])
        monkeypatch.setattr(transport, "KEEPALIVE_S", 3600.0)
        one.transport.set_voters({})
        await until(lambda: Disconnected(2) in one.events)
        one.transport.set_voters({2: two.address})
        await until(lambda: one.events[-1] == Connected(2))

        def is_given_up() -> bool:
            timeouts.advance(1.1 * transport.DEAD_S)
            return one.events.count(Disconnected(2)) > 1

        await until(is_given_up)


_MESSAGES: list[dict[str, Any]] = [
    {"type": "request_vote", "term": 3, "last_log_index": 5, "last_log_term": 2, "journal_id": b"j"},
    {"type": "request_pre_vote", "term": 3, "last_log_index": 5, "last_log_term": 2, "journal_id": b""},
    {"type": "response_vote", "term": 3},
    {"type": "pre_vote_answer", "term": 3, "granted": True, "asked_term": 2},
    {"type": "timeout_now", "term": 3},
    {
        "type": "append_entries",
        "term": 3,
        "commit_index": 4,
        "entries": [Entry(b"\0a", 6, 2), Entry(b"\1", 7, 3)],
        "prevLogIdx": 5,
        "prevLogTerm": 2,
    },
    {"type": "snapshot_chunk", "term": 3, "chunk": Chunk(5, 2, 100, 7, 10, b"data", 9, 4)},
    {"type": "next_node_idx", "term": 3, "next_node_idx": 9, "success": True, "reset": False},
    {"type": "next_node_idx", "term": 3, "next_node_idx": 9, "success": False, "reset": True},
    {"type": "next_node_idx", "term": 3, "next_node_idx": 0, "success": False, "reset": False},
    {"type": "snapshot_progress", "term": 3, "index": 5, "received": 10, "sequence": 4},
    {"type": "apply_command", "term": 0, "request_id": 2**51, "command": b"\0c"},
    {"type": "apply_command_response", "term": 0, "request_id": 8, "error": 4},
    {"type": "apply_command_response", "term": 0, "request_id": 8, "log_idx": 5, "log_term": 3},
]


@pytest.mark.parametrize("message", _MESSAGES, ids=lambda message: message["type"])
def test_every_message_survives_the_wire(message: dict[str, Any]) -> None:
    wire = messages.encode(message).SerializeToString()
    assert messages.decode(raft_pb2.RaftMessage.FromString(wire)) == message


@given(st.binary(max_size=200))
def test_garbage_is_a_message_or_an_error_of_its_own(data: bytes) -> None:
    record = raft_pb2.RaftMessage()
    try:
        record.ParseFromString(data)
        messages.decode(record)
    except (messages.MalformedMessageError, ValueError):
        pass
    except Exception as error:  # noqa: BLE001  protobuf's own, whatever its place
        assert type(error).__name__ == "DecodeError"  # noqa: PT017  the class moves between protobuf versions
