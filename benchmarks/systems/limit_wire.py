"""What the ceiling's processes say to each other: frames of fixed structs, whole messages handed to gRPC as bytes.

A message is one or more frames; a frame is FRAME and the batch. Whatever gathered while the last write was under way
goes into one message. Numbers are the client's, offsets are counted by the leader.
"""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

FRAME = struct.Struct("<IIII")
"""Number of the batch, partition, records in it, bytes that follow."""
REPLY = struct.Struct("<IQ")
"""Number of a batch that is as durable as asked for, its base offset."""
ACK = struct.Struct("<Q")
"""Bytes of a leader's pushes that are durable at the sink, in all since the stream began."""
SERVICE = "limit"
PRODUCE, PUSH, CONSUME, CREATE = "Produce", "Push", "Consume", "Create"
LIVE = b"live"
"""To Consume: what is acknowledged from now on; any other request names a topic: its stored batches, then the end."""
CHANNEL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""No more is joined into one message; a single frame may be larger."""


def method(name: str) -> str:
    """Give a method's path."""
    return f"/{SERVICE}/{name}"


class Outbox:
    """Messages on their way into one stream, joined as they gather."""

    def __init__(self, write: Callable[[Any], Awaitable[Any]]) -> None:
        self._write = write
        self._parts: list[bytes] = []
        self._wake = asyncio.Event()

    def put(self, part: bytes) -> None:
        """Queue; goes out with whatever is queued when the stream takes the next message."""
        self._parts.append(part)
        self._wake.set()

    def put_frame(self, header: bytes, payload: bytes) -> None:
        """Queue both."""
        self._parts += (header, payload)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._parts:
                parts, self._parts = self._parts, []
                for message in _messages(parts):
                    await self._write(message)


def _messages(parts: list[bytes]) -> list[bytes]:
    """Join parts into as few messages as the limit allows. A header is never the last part of a message but by size."""
    if len(parts) == 1:
        return parts
    size, start, messages = 0, 0, []
    for index, part in enumerate(parts):
        size += len(part)
        if size >= MAX_MESSAGE_BYTES and len(part) > FRAME.size:
            messages.append(b"".join(parts[start : index + 1]))
            start, size = index + 1, 0
    if start < len(parts):
        messages.append(b"".join(parts[start:]))
    return messages


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel and await."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
