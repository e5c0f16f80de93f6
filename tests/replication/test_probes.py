"""A follower's stream ends: whether its address refuses connections then is told to every partition (rule 29)."""

import asyncio
from types import SimpleNamespace
from typing import Any

from penstock.node.replication.replicas import Replicas


class Looked:
    """Replicas with one partition, whose probes are answered by hand."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.answers: list[asyncio.Future[bool]] = []
        replicas: Any = object.__new__(Replicas)
        shell = SimpleNamespace(on_unreachable=self.told.append)
        replicas._partitions = {"p": SimpleNamespace(shell=shell)}
        replicas._probes = {}
        replicas._seams = SimpleNamespace(refuses=self.refuses)
        self.replicas: Replicas = replicas

    def refuses(self, _: int) -> "asyncio.Future[bool]":
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_refusal_counts() -> None:
    looked = Looked()
    for lost in (1, 2):  # each time it goes
        looked.replicas.follower_lost(3)
        await turns()
        looked.answers[-1].set_result(True)
        await turns()
        assert looked.told == [3] * lost


async def test_a_refusal_that_comes_when_the_follower_is_back_is_of_its_former_process() -> None:
    looked = Looked()
    looked.replicas.follower_lost(3)
    await turns()
    looked.replicas.follower_back(3)
    if not looked.answers[0].done():
        looked.answers[0].set_result(True)
    await turns()
    assert looked.told == []
