"""What a node's servers promise below the services: HTTP/2 itself."""

import asyncio
import struct

from penstock.node.api.server import new_server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + b"\0\0\0\0" + payload


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer to a ping."""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        assert head[3] != GOAWAY, payload
        if head[3] == PING and head[4] & ACK:
            return payload


async def test_pings_that_come_at_once_do_not_end_a_connection() -> None:
    """So a quiet client that probes its connection keeps it. Found by the chaos suite."""
    server = new_server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + frame(SETTINGS))
        for number in range(20):  # one round trip each: a refusal may come behind an answer
            writer.write(frame(PING, b"%08d" % number))
            assert await answer(reader) == b"%08d" % number
    finally:
        writer.close()
        await server.stop(None)
