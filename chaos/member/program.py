"""One life of a member: a Consumer in a group, driven until it is told to leave. Every step is told to the runner.

It obeys lines on its connection: `{"order": "leave"}`, `{"order": "hurry"}` (handle records as fast as you can),
`{"order": "stall", "how": block or wait, "seconds": …}`. Where the connection ends, so does it, at once.
"""

import asyncio
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from penstock.chaos.history import value_of
from penstock.chaos.member.plan import MemberPlan, Stall
from penstock.chaos.member.voice import Voice
from penstock.chaos.member.witness import Witness
from penstock.client import Consumer, PenstockError, Record

POLL_TIMEOUT_S = 0.25
RETRY_S = 0.2
"""After an error."""
REQUEST_TIMEOUT_MS = 5_000


def live(connection: socket.socket) -> None:
    """Be a member, to the end of its life."""
    reader = connection.makefile("rb")
    plan = MemberPlan.from_line(reader.readline())
    logging.getLogger("penstock").addHandler(logging.NullHandler())  # what the client warns of is what is tried
    asyncio.run(Member(plan, Voice(connection, plan.clock_zero)).run(reader))


class _Watched(Consumer):
    """Its witness knows when it asks for records, also where process() does that."""

    witness: Witness

    async def poll(self, max_records: int = 500, timeout: float = 1.0) -> list[Record]:  # noqa: ASYNC109  as Consumer's
        """See Consumer."""
        self.witness.begin_poll()
        return await super().poll(max_records, timeout)


class Member:
    """See the module."""

    def __init__(self, plan: MemberPlan, voice: Voice) -> None:
        self._plan = plan
        self._voice = voice
        self._leaving = asyncio.Event()
        self._pace_s = plan.pace_s
        self._stalls: list[tuple[Stall, float]] = []
        self._witness = Witness(plan.group, voice)

    async def run(self, orders: BinaryIO) -> None:
        """Live."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._obey, args=(orders, loop), daemon=True).start()
        plan = self._plan
        self._voice.did(
            "group_joined",
            self._voice.now(),
            group=plan.group,
            instance=plan.instance_id,
            topics=plan.topics,
            commits=plan.commits,
        )
        consumer = self._consumer()
        self._witness.watch(consumer, commits=plan.commits == "manual")
        await consumer.open()
        try:
            await (self._process(consumer) if plan.commits == "process" else self._poll(consumer))
        finally:
            await consumer.close()
        self._voice.did("group_left", self._voice.now(), group=plan.group)

    # -- by polls

    async def _poll(self, consumer: Consumer) -> None:
        while not self._leaving.is_set():
            try:
                records = await consumer.poll(self._plan.most_records, POLL_TIMEOUT_S)
            except PenstockError as error:
                self._witness.polled([])
                self._voice.failed(error)
                await asyncio.sleep(RETRY_S)
                continue
            self._witness.polled(records)
            if records:
                await self._handle()
                if self._plan.commits == "manual":
                    await self._witness.commit(self._witness.in_hand())

    async def _handle(self) -> None:
        """Take the time that an application would."""
        await asyncio.sleep(self._pace_s)
        while self._stalls:
            how, seconds = self._stalls.pop()
            if how == "block":
                time.sleep(seconds)  # noqa: ASYNC251  a handler that blocks its loop: what is tried
            else:
                await asyncio.sleep(seconds)

    # -- by process()

    async def _process(self, consumer: Consumer) -> None:
        work = asyncio.create_task(self._process_until_it_fails(consumer))
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            work.cancel()
            await asyncio.gather(work, leaving, return_exceptions=True)

    async def _process_until_it_fails(self, consumer: Consumer) -> None:
        while True:
            try:
                await consumer.process(self._handler, concurrency=self._plan.concurrency)
            except PenstockError as error:
                self._voice.failed(error)
            await asyncio.sleep(RETRY_S)

    async def _handler(self, record: Record) -> None:
        began = self._voice.now()
        await self._handle()
        topic, partition, offset, _, _, value, headers, leader_epoch = record
        row = [offset, value_of(value, headers), leader_epoch]
        self._voice.did(
            "handed",
            began,
            group=self._plan.group,
            topic=topic,
            partition=partition,
            at=self._voice.now(),
            records=[row],
        )

    # -- inside

    def _consumer(self) -> Consumer:
        plan = self._plan
        consumer = _Watched(
            plan.bootstrap,
            group=plan.group,
            topics=plan.topics,
            instance_id=plan.instance_id,
            client_id=f"chaos-{os.getpid()}",
            session_timeout_ms=plan.session_timeout_ms,
            rebalance_timeout_ms=plan.rebalance_timeout_ms,
            max_poll_interval_ms=plan.max_poll_interval_ms,
            auto_commit=plan.commits == "auto",
            auto_commit_interval_ms=plan.auto_commit_interval_ms,
            listener=self._witness,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            address_map=plan.address_map,
        )
        consumer.witness = self._witness
        return consumer

    def _obey(self, orders: BinaryIO, loop: asyncio.AbstractEventLoop) -> None:
        """Read orders, in a thread of its own."""
        for line in orders:
            loop.call_soon_threadsafe(self._order, json.loads(line))
        os._exit(1)  # nobody is there whom anything could be told

    def _order(self, order: Mapping[str, Any]) -> None:
        if order["order"] == "leave":
            self._leaving.set()
        elif order["order"] == "hurry":
            self._pace_s = 0.0
        else:
            self._stalls.append((order["how"], order["seconds"]))
