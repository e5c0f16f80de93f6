"""One of the ceiling's three servers: takes batches, pushes them to the two others, commits them, answers.

    python -m benchmarks.systems.limit_server INDEX ADDRESSES FOLDER

Partition p is led by server p mod 3. A leader passes a client's message on as it is, before its own commit. All that
gathered while a commit was under way is one LMDB transaction with fsync, by one thread; one hop to the loop a commit.
No epochs, no ISR, no retries: any failure ends the process. Prints `ready` once it serves; ends when standard
input does.
"""

import asyncio
import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from benchmarks.drive import tune_process
from benchmarks.systems.limit_store import Store, Taken
from benchmarks.systems.limit_wire import (
    ACK,
    CHANNEL_OPTIONS,
    CONSUME,
    CREATE,
    LIVE,
    PRODUCE,
    PUSH,
    SERVICE,
    Outbox,
    end,
    method,
)


class Sink:
    """A follower's stream, at its leader."""

    def __init__(self, server: "Server", address: str) -> None:
        self._server = server
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._call: Any = self._channel.stream_stream(method(PUSH))(wait_for_ready=True)
        self.outbox = Outbox(self._call.write)
        self.durable = 0
        self._tasks = (asyncio.create_task(self.outbox.run()), asyncio.create_task(self._read()))

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            (self.durable,) = ACK.unpack_from(message, len(message) - ACK.size)  # the last one says it all
            self._server.settle()

    async def close(self) -> None:
        """End the stream."""
        await end(*self._tasks)
        await self._channel.close()


class Server:
    """See the module."""

    def __init__(self, index: int, addresses: list[str], folder: Path) -> None:
        self._peers = [address for other, address in enumerate(addresses) if other != index]
        self._store = Store(folder, asyncio.get_running_loop(), self._committed)
        self._sinks: list[Sink] = []
        self._wait_all = True
        self._durable = 0
        """Bytes of clients' messages that this server has committed, of the present topic."""
        self._unsettled: deque[tuple[int, Outbox, bytes, bytes]] = deque()
        """Position, whom to answer, the answer, the message."""
        self._live: list[Outbox] = []

    async def create(self, request: bytes, _: Any) -> bytes:
        """Begin a topic: {topic, replication, acks}. From now on everything belongs to it."""
        wanted = json.loads(request)
        for sink in self._sinks:
            await sink.close()
        self._store.begin(wanted["topic"])
        self._durable = 0
        self._wait_all = wanted["acks"] == "all"
        self._sinks = [Sink(self, address) for address in self._peers] if wanted["replication"] > 1 else []
        return b""

    async def produce(self, _: Any, context: Any) -> None:
        """Take a client's messages."""
        outbox = Outbox(context.write)
        writer = asyncio.create_task(outbox.run())
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                for sink in self._sinks:
                    sink.outbox.put(message)
                self._store.submit((True, outbox, message))
        finally:
            await end(writer)

    async def push(self, _: Any, context: Any) -> None:
        """Take a leader's messages."""
        outbox = Outbox(context.write)
        writer = asyncio.create_task(outbox.run())
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                self._store.submit((False, outbox, message))
        finally:
            self._store.positions.pop(outbox, None)
            await end(writer)

    async def consume(self, _: Any, context: Any) -> None:
        """Send what is stored of a topic, or what is acknowledged from now on."""
        request = await context.read()
        if request != LIVE:
            loop = asyncio.get_running_loop()
            chunks = self._store.chunks(request.decode())
            following = loop.run_in_executor(None, next, chunks, None)
            while (chunk := await following) is not None:
                following = loop.run_in_executor(None, next, chunks, None)
                await context.write(chunk)
            return
        outbox = Outbox(context.write)
        await context.send_initial_metadata(())
        self._live.append(outbox)
        writer = asyncio.create_task(outbox.run())
        try:
            await context.read()
        finally:
            self._live.remove(outbox)
            await end(writer)

    def _committed(self, taken: Taken) -> None:
        """A commit is durable."""
        for outbox, message, reply in taken.led:
            self._durable += len(message)
            self._unsettled.append((self._durable, outbox, reply, message))
        for outbox, position in taken.followed.items():
            outbox.put(ACK.pack(position))
        if taken.led:
            self.settle()

    def settle(self) -> None:
        """Answer what has become durable where it must be."""
        done = self._durable
        if self._wait_all:
            for sink in self._sinks:
                done = min(done, sink.durable)
        unsettled = self._unsettled
        while unsettled and unsettled[0][0] <= done:
            _, outbox, reply, message = unsettled.popleft()
            outbox.put(reply)
            for consumer in self._live:
                consumer.put(message)


async def serve(index: int, addresses: list[str], folder: Path) -> None:
    """Serve until standard input ends."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *CHANNEL_OPTIONS))
    limit = Server(index, addresses, folder)
    handlers: dict[str, Any] = {
        CREATE: grpc.unary_unary_rpc_method_handler(limit.create),
        PRODUCE: grpc.stream_stream_rpc_method_handler(limit.produce),
        PUSH: grpc.stream_stream_rpc_method_handler(limit.push),
        CONSUME: grpc.stream_stream_rpc_method_handler(limit.consume),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(addresses[index])
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    os._exit(0)  # every answer given is durable


def main() -> None:
    """Entry point."""
    index, addresses, folder = sys.argv[1:]
    tune_process()
    uvloop.run(serve(int(index), addresses.split(","), Path(folder)))


if __name__ == "__main__":
    main()
