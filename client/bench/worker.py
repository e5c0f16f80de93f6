"""A producer of a bench as a process of its own: `python -m penstock.client.bench.worker`.

Standard input: one line of JSON (`servers`, `plan`); then "go" begins what is measured; "stop", or the end of input,
ends it early. Standard output: lines of JSON with one member: `progress` (a Tally, each second), `warmed` (the
warm-up's), `done` (what was measured, with `usage`), or `error`. Signals of the terminal are the parent's business.
"""

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

from penstock.client import PenstockError
from penstock.client.bench.machine import ProcessUsage, patient_gc
from penstock.client.bench.plan import Phase, Plan
from penstock.client.bench.send import Sender

PROGRESS_S = 1.0


def _tell(**member: Any) -> None:
    sys.stdout.write(json.dumps(member) + "\n")
    sys.stdout.flush()


async def _listen(commands: asyncio.StreamReader, go: asyncio.Event, stop: asyncio.Event) -> None:
    while (await commands.readline()).strip() == b"go":
        go.set()
    stop.set()
    go.set()


async def _report(sender: Sender) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        _tell(progress=sender.tally.to_json())


async def _work(sender: Sender, plan: Plan, go: asyncio.Event) -> None:
    warmed = await sender.run(Phase(seconds=plan.warmup_s)) if plan.warmup_s else sender.tally
    _tell(warmed=warmed.to_json())
    await go.wait()
    before = ProcessUsage.now()
    tally = await sender.run(plan.phase)
    _tell(done=tally.to_json(), usage=asdict(ProcessUsage.now().since(before)))


async def _serve() -> int:
    loop, commands = asyncio.get_running_loop(), asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    job = json.loads(await commands.readline())
    plan = Plan.from_json(job["plan"])
    go, stop = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(_listen(commands, go, stop))]
    try:
        async with Sender(job["servers"], plan, stop) as sender:
            tasks.append(asyncio.create_task(_report(sender)))
            await _work(sender, plan, go)
    except PenstockError as error:
        _tell(error={"reason": error.reason.name, "message": error.message, "metadata": dict(error.metadata)})
        return 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0


def main() -> None:
    """Entry point."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with patient_gc():
        code = asyncio.run(_serve())
    sys.exit(code)


if __name__ == "__main__":
    main()
