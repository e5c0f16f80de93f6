"""Lives of members, in processes of their own: born by a nursery, listened to, told to leave, frozen, killed.

Owns the nursery's process. Whatever becomes of the runner, they are all gone with it (see penstock.chaos.member).
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.chaos.member.plan import MemberPlan, Stall

PROGRAM = (sys.executable, "-P", "-m", "penstock.chaos.member.nursery")
"""The nursery, run by this Python. The tests' own one has a bug built in."""
BACKLOG = 64
MOST_LINE_BYTES = 1 << 24
"""Of what a member tells at once."""
BIRTH_PATIENCE_S = 60.0
"""The first one waits until the nursery has imported everything."""
END_PATIENCE_S = 10.0

Told = Callable[[dict[str, Any]], None]
"""Takes what a member tells."""


class Life:
    """One member's process, from birth to its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int, told: Told) -> None:
        self.pid = pid
        self.is_frozen = False
        self._writer = writer
        self._listening = asyncio.create_task(self._listen(reader, told))

    @property
    def is_over(self) -> bool:
        """The process is gone, and all that it told was taken."""
        return self._listening.done()

    async def ended(self) -> None:
        """Wait until it is over. Raises what `told` has raised."""
        await asyncio.shield(self._listening)

    def leave(self) -> None:
        """Tell it to leave in order."""
        self._order(order="leave")

    def hurry(self) -> None:
        """Let it handle records as fast as it can from now on."""
        self._order(order="hurry")

    def stall(self, how: Stall, seconds: float) -> None:
        """Let its handler take so long once."""
        self._order(order="stall", how=how, seconds=seconds)

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP)."""
        self.is_frozen = self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)
        self.is_frozen = False

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _order(self, **order: Any) -> None:
        if not self.is_over and not self._writer.is_closing():
            self._writer.write(json.dumps(order).encode() + b"\n")

    def _signal(self, number: signal.Signals) -> bool:
        """Only while it is not over: its process id is its own until then, for the end is heard before it is reaped."""
        if self.is_over:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    async def _listen(self, reader: asyncio.StreamReader, told: Told) -> None:
        try:
            while line := await reader.readline():
                if line.endswith(b"\n"):  # else it was killed while it spoke
                    told(json.loads(line))
        except ConnectionError:
            pass
        finally:
            self._writer.close()


class Nursery:
    """See the module. Use as an async context manager, or open and close it, from one event loop."""

    def __init__(self, program: Sequence[str] = ()) -> None:
        self._program = tuple(program) or PROGRAM
        self._lives: set[Life] = set()
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> "Nursery":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start its process."""
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-")
        self._address = str(Path(self._folder.name) / "nursery")
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(self._address)
            listener.listen(BACKLOG)
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220  our own program, no shell; it returns at once
                [*self._program, str(listener.fileno())], stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
            )

    async def close(self) -> None:
        """End it, and all lives."""
        if self._process is None:
            return
        for life in self._lives:
            life.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.to_thread(_end, self._process)
        await asyncio.gather(*(life.ended() for life in self._lives), return_exceptions=True)
        self._folder.cleanup()

    async def birth(self, plan: MemberPlan, told: Told) -> Life:
        """Start a member. Raises OSError, TimeoutError where the nursery is gone."""
        async with asyncio.timeout(BIRTH_PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(self._address, limit=MOST_LINE_BYTES)
            writer.write(plan.to_line())
            first = await reader.readline()
        if not first:
            raise ConnectionResetError("the nursery has ended")
        life = Life(reader, writer, int(json.loads(first)["pid"]), told)
        self._lives = {one for one in self._lives if not one.is_over} | {life}
        return life


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(END_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
