"""The look-alike of gRPC under what only a simulated network and process can do: breaks, cuts, deaths, pauses."""

import asyncio
import gc
from typing import Any, cast

import grpc
import pytest

from penstock.internal.v1 import controller_pb2, controller_pb2_grpc
from penstock.node.api.status import StatusInterceptor
from penstock.node.controller.service import ControllerCalls, ControllerService
from penstock.node.peers import CHANNEL_OPTIONS
from penstock.protocol.calls import from_call
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.simulation.kernel.contract_worlds import SimWorld, until
from tests.simulation.kernel.loop import SimLoop
from tests.simulation.kernel.rpc import SimChannel, SimServer, refuses
from tests.simulation.kernel.rpc_wire import WINDOW_BYTES, WINDOW_MESSAGES
from tests.simulation.kernel.test_rpc_contract import Service, blocked_writer, failure, methods

Code = grpc.StatusCode
State = grpc.ChannelConnectivity


async def standing(world: SimWorld) -> tuple[Service, Any, Any]:
    """A server, a channel to it and a stream on which the handler hangs."""
    service = Service()
    await world.start(service.handler())
    channel = world.channel()
    call = methods(channel).stream()
    await call.write(b"hang")
    await until(lambda: service.seen == ["hangs"])
    return service, channel, call


def kill_server(world: SimWorld, *, silently: bool = False) -> None:
    world.served.close()
    world.network.lose_host("s", silently=silently)


def revive_server(world: SimWorld) -> None:
    world.network.power("s")
    world.served = SimLoop(world.scheduler, "s", lambda: 1e-5)


def test_a_process_that_dies_breaks_its_calls_and_comes_back() -> None:
    async def scenario(world: SimWorld) -> None:
        _, channel, call = await standing(world)
        stub = methods(channel)
        unary = stub.unary(b"wait")
        await asyncio.sleep(0.1)
        kill_server(world)
        assert await failure(call.read()) == (Code.UNAVAILABLE, "Stream removed (recvmsg:Connection reset by peer)")
        assert (await failure(unary))[0] is Code.UNAVAILABLE
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"late")
        _, details = await failure(stub.unary(b"x"))
        assert "Connection refused" in (details or "")
        assert channel.get_state() is State.TRANSIENT_FAILURE
        assert await refuses(world.network, "c", "s", 7000, 0.5)
        revive_server(world)
        await world.start(Service().handler())
        await channel.channel_ready()
        assert await stub.unary(b"again") == b"again"
        assert not await refuses(world.network, "c", "s", 7000, 0.5)

    SimWorld().run(scenario)


def test_what_a_break_does_to_a_blocked_write_and_to_unread_messages() -> None:
    """As seen with a killed server on loopback, grpcio 1.85."""

    async def scenario(world: SimWorld) -> None:
        _, channel, call = await standing(world)
        writer = await blocked_writer(call)
        unread = methods(channel).stream()
        await unread.write(b"three and abort")
        await unread.read()
        flooded = methods(channel).stream()
        await flooded.write(b"flood")
        await asyncio.sleep(0.5)
        kill_server(world)
        assert await failure(writer) == (Code.INTERNAL, "Internal error from Core")
        assert await call.code() is Code.UNAVAILABLE
        assert (await failure(flooded.read()))[0] is Code.UNAVAILABLE
        assert await unread.read() == b"1"
        assert await unread.read() == b"2"
        assert (await failure(unread.read()))[0] is Code.ABORTED

    SimWorld().run(scenario)


def test_a_host_without_power_is_noticed_by_silence_only() -> None:
    async def scenario(world: SimWorld) -> None:
        _, channel, call = await standing(world)
        began = world.scheduler.now
        kill_server(world, silently=True)
        assert await failure(call.read()) == (Code.UNAVAILABLE, "keepalive watchdog timeout")
        assert world.scheduler.now - began > 1.0
        assert not await refuses(world.network, "c", "s", 7000, 0.5)
        _, details = await failure(methods(channel).unary(b"x"))
        assert "onnection refused" not in (details or "")

    SimWorld().run(scenario)


def test_a_client_that_dies_has_its_handlers_cancelled() -> None:
    world = SimWorld()
    service = Service()

    async def scenario(world: SimWorld) -> None:
        other = SimLoop(world.scheduler, "d", lambda: 1e-5)
        await world.start(service.handler())

        async def client() -> None:
            call = methods(SimChannel(world.network, "d", "s:7000", CHANNEL_OPTIONS)).stream()
            try:
                await call.write(b"hang")
                await call.read()
            finally:  # all of this is nothing in a process that is gone
                call.cancel()
                channel = SimChannel(world.network, "d", "s:7000")
                channel.get_state(try_to_connect=True)
                methods(channel).unary(b"x")
                await channel.close()

        task = other.create_task(client())
        await until(lambda: service.seen == ["hangs"])
        other.close()
        world.network.lose_host("d", silently=False)
        await until(lambda: service.seen == ["hangs", "cancelled"])
        assert not other.errors
        del task

    world.run(scenario)
    gc.collect()


def test_a_client_that_dies_while_it_dials_leaves_no_connection() -> None:
    async def scenario(world: SimWorld) -> None:
        await world.start(Service().handler())
        other = SimLoop(world.scheduler, "d", lambda: 1e-5)
        channel = other.run(SimChannel, world.network, "d", "s:7000")
        other.run(lambda: channel.get_state(try_to_connect=True))
        other.close()
        world.network.lose_host("d", silently=False)
        await asyncio.sleep(1.0)
        assert world.server is not None
        assert not world.server.connections

    SimWorld().run(scenario)


def test_a_call_that_is_cancelled_at_once_never_reaches_its_handler() -> None:
    async def scenario(world: SimWorld) -> None:
        service = Service()
        await world.start(service.handler())
        channel = world.channel()
        await channel.channel_ready()
        methods(channel).unary(b"wait").cancel()
        await asyncio.sleep(1.0)
        assert service.seen == []
        assert world.server is not None
        assert not world.server.active

    SimWorld().run(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_that_heals_loses_and_repeats_nothing(seed: int) -> None:
    async def scenario(world: SimWorld) -> None:
        await world.start(Service().handler())
        call = methods(world.channel()).stream()
        await call.write(b"echo")

        async def write() -> None:
            for number in range(100):
                await call.write(b"%d" % number)
                await asyncio.sleep(0.005)
            await call.done_writing()

        async def cut() -> None:
            for link in (("c", "s"), ("s", "c"), ("c", "s")):
                world.network.cut(*link)
                await asyncio.sleep(0.15)
                world.network.heal(*link)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(write()), asyncio.create_task(cut())]
        assert [message async for message in call] == [b"%d" % number for number in range(100)]
        await asyncio.gather(*tasks)

    SimWorld(seed).run(scenario)


@pytest.mark.parametrize("link", [("c", "s"), ("s", "c")])
def test_a_one_way_cut_ends_both_sides_after_a_while(link: tuple[str, str]) -> None:
    async def scenario(world: SimWorld) -> None:
        service, channel, call = await standing(world)
        world.network.cut(*link)
        unary = methods(channel).unary(b"x", timeout=1.0)
        assert (await failure(unary))[0] is Code.DEADLINE_EXCEEDED
        assert (await failure(call.read()))[0] is Code.UNAVAILABLE
        await until(lambda: service.seen == ["hangs", "cancelled"])
        code, _ = await failure(methods(channel).unary(b"x", timeout=3.0))
        assert code in {Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}
        world.network.heal_all()
        await channel.channel_ready()
        assert await methods(channel).unary(b"x") == b"x"

    SimWorld().run(scenario)


def test_a_reset_connection_fails_what_is_under_way_and_the_next_call_dials() -> None:
    async def scenario(world: SimWorld) -> None:
        service, channel, call = await standing(world)
        world.network.cut("c", "s", reset=True)
        world.network.heal("c", "s")
        assert (await failure(call.read()))[0] is Code.UNAVAILABLE
        assert channel.get_state() is State.IDLE
        assert await methods(channel).unary(b"x") == b"x"
        await until(lambda: service.seen == ["hangs", "cancelled"])

    SimWorld().run(scenario)


@pytest.mark.parametrize(("size", "room"), [(10, WINDOW_MESSAGES), (20_000, -(-WINDOW_BYTES // 20_000))])
def test_a_writer_waits_while_the_reader_does_not_read(size: int, room: int) -> None:
    async def scenario(world: SimWorld) -> None:
        service = Service()
        await world.start(service.handler())
        call = methods(world.channel()).stream()
        await call.write(b"flood")
        await asyncio.sleep(1.0)
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(100):
                await call.write(b"x" * size)
                written += 1

        writer = asyncio.create_task(write())
        world.served.pause(world.scheduler.now + 2.0)
        await asyncio.sleep(1.0)
        assert room - 1 <= written <= room
        await writer
        await until(lambda: len(service.seen) == 100)
        call.cancel()

    SimWorld().run(scenario)


def test_a_process_that_stands_still_is_not_ready() -> None:
    async def scenario(world: SimWorld) -> None:
        await world.start(Service().handler())
        world.served.pause(world.scheduler.now + 3.0)
        channel = world.channel()
        call = methods(channel).unary(b"x")
        assert channel.get_state() is State.CONNECTING
        code, details = await failure(call)
        assert code is Code.UNAVAILABLE
        assert "onnection refused" not in (details or "")
        assert not await refuses(world.network, "c", "s", 7000, 0.5)
        await channel.channel_ready()
        assert await methods(channel).unary(b"x") == b"x"

    SimWorld().run(scenario)


def test_calls_under_way_end_in_a_servers_grace_while_new_ones_go_elsewhere() -> None:
    async def scenario(world: SimWorld) -> None:
        service = Service()
        await world.start(service.handler())
        channel = world.channel()
        old = methods(channel).unary(b"wait for go")
        await until(lambda: service.context is not None)
        first = world.served
        assert world.server is not None
        stopping = first.create_task(world.server.stop(5.0))
        await channel.wait_for_state_change(State.READY)
        await world.start(Service().handler())
        assert await methods(channel).unary(b"new") == b"new"
        service.go = True
        assert await old == b"wait for go"
        await until(stopping.done)
        assert channel.get_state() is State.READY

    SimWorld().run(scenario)


def test_a_port_is_taken_once() -> None:
    world = SimWorld()
    one, two = SimServer(world.network, "s"), SimServer(world.network, "s")
    assert one.add_insecure_port("0.0.0.0:7000") == 7000
    with pytest.raises(RuntimeError, match="Failed to bind"):
        two.add_insecure_port("[::]:7000")
    free = two.add_insecure_port("127.0.0.1:0")
    assert free not in {0, 7000}
    assert SimServer(world.network, "other").add_insecure_port("0.0.0.0:7000") == 7000


def test_the_projects_stubs_and_services_run_on_it() -> None:
    class Calls:
        async def heartbeat(
            self, request: controller_pb2.HeartbeatRequest, timeout_s: float
        ) -> controller_pb2.HeartbeatResponse:
            if request.node_id == 7:
                raise PenstockError(Reason.NO_CONTROLLER, "not here", {"controller": "3"})
            assert 1 < timeout_s <= 2
            return controller_pb2.HeartbeatResponse()

    async def scenario(world: SimWorld) -> None:
        server = SimServer(world.network, "s", (StatusInterceptor(),))
        service = ControllerService(cast("ControllerCalls", Calls()))
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(service, cast("grpc.aio.Server", server))
        server.add_insecure_port("n1:7000")
        await world.on_server(server.start())
        stub: Any = controller_pb2_grpc.ControllerServiceStub(world.channel())
        answer = await stub.Heartbeat(controller_pb2.HeartbeatRequest(node_id=1), timeout=2)
        assert isinstance(answer, controller_pb2.HeartbeatResponse)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Heartbeat(controller_pb2.HeartbeatRequest(node_id=7), timeout=2)
        error = from_call(caught.value)
        assert (error.reason, error.metadata["controller"]) == (Reason.NO_CONTROLLER, "3")
        assert (await failure(stub.Leave(controller_pb2.LeaveRequest())))[0] is Code.INTERNAL

    SimWorld().run(scenario)


def run_of(seed: int) -> tuple[float, list[object]]:
    """One busy world; when it ended and what was seen."""
    seen: list[object] = []

    async def scenario(world: SimWorld) -> None:
        service = Service()
        service.seen = seen
        await world.start(service.handler())
        stub = methods(world.channel())

        async def echo(name: int) -> None:
            for number in range(20):
                answer = await stub.unary(b"%d %d" % (name, number), timeout=5)
                seen.append(answer)

        async def stream(name: int) -> None:
            call = stub.stream(timeout=0.1 * (name + 1))
            await call.write(b"hang")
            seen.append(await failure(call.read()))

        await asyncio.gather(*(work(name) for name in range(5) for work in (echo, stream)))

    world = SimWorld(seed)
    world.run(scenario)
    return world.scheduler.now, seen


def test_a_seed_is_one_run() -> None:
    assert run_of(1) == run_of(1)
    assert run_of(1) != run_of(2)
