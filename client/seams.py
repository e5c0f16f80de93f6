"""What the client takes from the machine, in one place: time, chance, unique names and channels.

A client asks for nothing else that differs between two runs, so that a simulator which brings its own of these (and an
event loop in virtual time) sees the same run again. Set before `open`; fixed from then on.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

from penstock.client.clock import Clock, SystemClock
from penstock.client.group.watchdog import Watchdog

ChannelOptions: TypeAlias = Sequence[tuple[str, int]]
Dial: TypeAlias = Callable[[str, grpc.ChannelCredentials | None, ChannelOptions], grpc.aio.Channel]
"""Makes a channel to an address, without connecting yet."""
StartWatchdog: TypeAlias = Callable[[Clock, Callable[[str], grpc.Channel]], Watchdog]
"""Starts the thread that sends a group member's heartbeats while the event loop is blocked; it dials by the second."""


def dial(address: str, credentials: grpc.ChannelCredentials | None, options: ChannelOptions) -> grpc.aio.Channel:
    """Make a gRPC channel; without credentials an insecure one."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def unique() -> str:
    """Make a name that nobody has: for request ids."""
    return uuid.uuid4().hex


def _chance() -> random.Random:
    return random.Random()  # noqa: S311 - jitter and stickiness, no secret


@dataclass(frozen=True, slots=True)
class Seams:
    """See the module. Made without arguments: the real things."""

    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=_chance)
    dial: Dial = dial
    unique: Callable[[], str] = unique
    watchdog: StartWatchdog | None = Watchdog
    """None: no thread."""
