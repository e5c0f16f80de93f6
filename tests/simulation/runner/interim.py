"""Consensus worlds as they are today, without plans. Goes when that package provides the interface itself."""

from dataclasses import dataclass
from typing import Any

from tests.simulation.consensus.__main__ import run_seed


@dataclass(frozen=True)
class Result:
    """How it ended."""

    seed: int
    hash: int
    failure: str | None
    lines: list[str] | None
    steps: int


def plan_of(seed: int) -> tuple[Any, ...]:
    return ()


def to_json(plan: tuple[Any, ...]) -> list[Any]:
    return list(plan)


def from_json(data: list[Any]) -> tuple[Any, ...]:
    return tuple(data)


def run(seed: int, plan: tuple[Any, ...] | None = None, *, record: bool = False) -> Result:
    world, failure = run_seed(seed, record=record)
    return Result(seed, world.hash, failure, world.lines, world._sequence)
