"""The event loop in virtual time: order, pauses, and how a process ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.simulation.kernel.loop import SimLoop
from tests.simulation.kernel.scheduler import START, Scheduler


def new_loop(seed: int = 1) -> tuple[Scheduler, SimLoop]:
    scheduler = Scheduler(seed)
    rng = scheduler.rng("lag")
    return scheduler, SimLoop(scheduler, "p", lambda: 1e-5 + 1e-4 * rng.random(), offset=5_000.0)


def finished(scheduler: Scheduler, loop: SimLoop, work: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        return await work()

    task = loop.create_task(whole())
    scheduler.run_until(START + 1_000, task.done)
    return task.result()


def test_time_passes_only_by_waiting() -> None:
    scheduler, loop = new_loop()

    async def work() -> float:
        began = loop.time()
        await asyncio.sleep(100)
        return loop.time() - began

    assert 100 <= finished(scheduler, loop, work) < 100.001


def test_sets_of_tasks_have_one_order() -> None:
    def order(padding: int) -> list[str]:
        scheduler, loop = new_loop()
        kept: list[object] = []

        async def one(number: int) -> None:
            kept.append([bytes(padding * number)])  # so that addresses differ from run to run
            await asyncio.sleep(1)

        async def work() -> list[str]:
            tasks = {asyncio.create_task(one(number), name=f"{number}") for number in range(200)}
            done, _ = await asyncio.wait(tasks)
            return [task.get_name() for task in done]

        names: list[str] = finished(scheduler, loop, work)
        return names

    assert order(0) == order(1_000)


def test_a_paused_process_is_late() -> None:
    scheduler, loop = new_loop()

    async def work() -> float:
        loop.pause(scheduler.now + 10)
        await asyncio.sleep(1)
        return scheduler.now - START

    assert 10 <= finished(scheduler, loop, work) < 10.1


def test_the_tasks_of_a_process_that_dies_end_and_reach_nothing() -> None:
    scheduler, loop = new_loop()
    seen: list[str] = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ends")
            await asyncio.sleep(0)
            seen.append("was closed at its await")

    async def work() -> None:
        tasks = [asyncio.create_task(child()) for _ in range(3)]
        try:
            await asyncio.gather(*tasks)
        finally:
            seen.append("parent ends")
            asyncio.create_task(child()).add_done_callback(lambda _: seen.append("no"))
            loop.call_soon(seen.append, "no")
            loop.call_later(1, seen.append, "no")

    loop.create_task(work())
    scheduler.run_until(START + 1)
    loop.close()
    scheduler.run_until(START + 10)
    assert seen == ["parent ends", "ends", "ends", "ends"]
    assert not loop.errors


def test_work_in_an_executor_runs_later_and_in_one_piece() -> None:
    scheduler, loop = new_loop()

    async def work() -> float:
        began = scheduler.now
        return await asyncio.to_thread(lambda: scheduler.now) - began

    assert 0 < finished(scheduler, loop, work) < 0.01
