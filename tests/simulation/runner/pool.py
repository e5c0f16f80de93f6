"""Processes that run worlds, and what they are given to do.

A process that dies is that seed's failure; another one goes on behind it.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.simulation.runner.worker import READY, Report
from tests.simulation.runner.worlds import Kind

ROOT = Path(__file__).parents[3]
CPU_S = 120.0
"""What one world may take. It is hundreds of times what one takes."""
_LINE_BYTES = 1 << 24
OnReport = Callable[[range, Report], None]


def environment() -> dict[str, str]:
    """Of a process that runs worlds: its hash seed is its own, so that a world that depends on it is found out."""
    return os.environ | {"PYTHONHASHSEED": "random", "GRPC_VERBOSITY": "ERROR"}


class NotStartedError(Exception):
    """A process ended before it could run anything; why is on standard error."""


class Worker:
    """One process that runs worlds, and its successors. Use as an asynchronous context."""

    def __init__(self, kind: Kind, limit_s: float = CPU_S) -> None:
        self._kind = kind
        self._limit_s = limit_s
        self._process: Process | None = None

    async def __aenter__(self) -> "Worker":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await _ended(process)

    async def run(self, seeds: range, on_report: Callable[[Report], None]) -> None:
        """Run worlds, one after another."""
        at = 0
        while at < len(seeds):
            todo = seeds[at:]
            process = await self._ask({"seeds": [todo.start, todo.stop, todo.step]})
            for seed in todo:
                report = await self._answer(process, seed)
                at += 1
                on_report(report)
                if self._process is None:
                    break

    async def run_plan(self, seed: int, plan: Sequence[Any] | None) -> Report:
        """Run one world by a plan, whose actions are given as JSON."""
        process = await self._ask({"seeds": [seed, seed + 1], "plan": plan})
        return await self._answer(process, seed)

    async def _ask(self, request: dict[str, Any]) -> Process:
        process = self._process or await self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        return process

    async def _answer(self, process: Process, seed: int) -> Report:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line.endswith(b"\n"):
            return Report(*json.loads(line))
        self._process = None
        code = await _ended(process)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Report(seed, 0, f"process died: {how}", 0, 0.0, {})

    async def _start(self) -> Process:
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.simulation.runner.worker", self._kind.module, str(self._limit_s)),
            cwd=ROOT,
            env=environment(),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_BYTES,
            process_group=0,  # Ctrl-C is for the runner
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line.decode().strip() != json.dumps(READY):
            self._process = None
            await _ended(process)
            raise NotStartedError(f"{self._kind.module} could not be loaded")
        return process


async def _ended(process: Process) -> int:
    """Wait for a process that is ending; its exit code. (To kill it would be to compete for its code with asyncio.)"""
    await process.communicate()
    return process.returncode or 0


async def run_chunks(
    kind: Kind, chunks: Iterator[range], on_report: OnReport, *, jobs: int, limit_s: float = CPU_S
) -> None:
    """Run all chunks in `jobs` processes, each taking the next one when it has time."""

    async def lane() -> None:
        async with Worker(kind, limit_s) as worker:
            for chunk in chunks:
                await worker.run(chunk, lambda report, chunk=chunk: on_report(chunk, report))  # type: ignore[misc]

    async with asyncio.TaskGroup() as lanes:
        for _ in range(jobs):
            lanes.create_task(lane())
