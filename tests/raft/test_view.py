"""The view: from the consensus thread to the loop, versions rising, waiters served."""

import asyncio
import threading
from dataclasses import replace

import pytest

from penstock.raft.image import EMPTY_IMAGE, MetadataImage
from penstock.raft.view import View


def image(version: int) -> MetadataImage:
    return replace(EMPTY_IMAGE, version=version)


async def test_subscribers_on_the_loop_see_what_a_thread_publishes() -> None:
    view = View()
    seen: list[tuple[int, int, int]] = []
    view.subscribe(lambda old, new: seen.append((old.version, new.version, threading.get_ident())))

    def publish() -> None:
        for version in range(1, 101):
            view.publish(image(version))

    thread = threading.Thread(target=publish)
    thread.start()
    await view.wait_for(100, 10)
    thread.join()
    assert {ident for _, _, ident in seen} == {threading.get_ident()}
    assert [old for old, _, _ in seen] == [0, *(new for _, new, _ in seen[:-1])]
    assert seen[-1][1] == 100


async def test_images_that_follow_fast_are_shown_as_one_difference() -> None:
    view = View()
    seen: list[tuple[int, int]] = []
    view.subscribe(lambda old, new: seen.append((old.version, new.version)))
    for version in (1, 2, 3):
        view.publish(image(version))
    assert view.image.version == 0, "not before the loop's turn"
    await asyncio.sleep(0)
    assert seen == [(0, 3)]


async def test_waiting_for_a_version_ends_at_it_or_above() -> None:
    view = View()
    waits = [asyncio.create_task(view.wait_for(version, 10)) for version in (1, 2, 5)]
    await asyncio.sleep(0)
    view.publish(image(3))
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().version for task in done} == {3}
    await asyncio.wait_for(waits[1], 10)
    assert pending - {waits[1]} == {waits[2]}
    waits[2].cancel()
    assert (await view.wait_for(3, 0)).version == 3


async def test_waiting_has_an_end() -> None:
    view = View()
    with pytest.raises(TimeoutError):
        await view.wait_for(1, 0.001)
    assert view._waiters == []


async def test_a_version_never_goes_back() -> None:
    view = View()
    view.publish(image(2))
    with pytest.raises(ValueError, match="version 1 after 2"):
        view.publish(image(1))


async def test_one_subscribers_fault_does_not_blind_the_others(caplog: pytest.LogCaptureFixture) -> None:
    view = View()
    seen: list[int] = []

    def broken(_: MetadataImage, __: MetadataImage) -> None:
        raise RuntimeError("fault")

    view.subscribe(broken)
    unsubscribe = view.subscribe(lambda _, new: seen.append(new.version))
    view.publish(image(1))
    await asyncio.sleep(0)
    unsubscribe()
    view.publish(image(2))
    await asyncio.sleep(0)
    assert seen == [1]
    assert "a metadata subscriber failed" in caplog.text


async def test_publishing_after_the_loop_has_ended_is_harmless() -> None:
    loop = asyncio.new_event_loop()
    view = View(loop=loop)
    loop.close()
    view.publish(image(1))


def test_without_a_loop_images_are_shown_at_once() -> None:
    view = View()
    seen: list[int] = []
    view.subscribe(lambda _, new: seen.append(new.version))
    view.publish(image(1))
    assert (seen, view.image.version) == ([1], 1)
