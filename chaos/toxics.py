"""What Toxiproxy can do to a connection. Names and units are Toxiproxy's.

Traps: TCP only. A `reset_peer` waits for data, and ends connections that were open before it without a reset. A
`limit_data` counts each connection, and those that were open before it from then on. Removing a `timeout` closes the
connections that it held up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

OURS = "penstock-"
"""What the names of our toxics begin with: others' are left alone."""
TOXICITY_STEP = 1e-6
"""Toxiproxy keeps toxicity in 32 bits."""


class Stream(StrEnum):
    """Which way bytes flow."""

    UPSTREAM = "upstream"
    """From the one who connected to the one who listens."""
    DOWNSTREAM = "downstream"


BOTH = (Stream.UPSTREAM, Stream.DOWNSTREAM)


@dataclass(frozen=True, slots=True)
class Toxic:
    """One disturbance of one stream."""

    kind: str
    stream: Stream
    attributes: Mapping[str, int] = field(default_factory=dict)
    toxicity: float = 1.0
    """The share of connections that it hits."""
    owner: str = ""
    """Toxics of different owners are apart, even of the same kind."""

    @property
    def name(self) -> str:
        """What it is called in Toxiproxy."""
        owner = f"{self.owner}-" if self.owner else ""
        return f"{OURS}{owner}{self.kind}-{self.stream}"

    def is_shown_by(self, shown: Mapping[str, Any]) -> bool:
        """Say whether Toxiproxy's account of a toxic is this one. What was not asked for is 0 there."""
        attributes = {name: value for name, value in shown["attributes"].items() if value}
        return (
            shown["type"] == self.kind
            and shown["stream"] == self.stream
            and attributes == {name: value for name, value in self.attributes.items() if value}
            and abs(shown["toxicity"] - self.toxicity) < TOXICITY_STEP
        )

    @property
    def closes_when_removed(self) -> bool:
        """Say whether connections end when it is removed."""
        return self.kind == "timeout"


def on_both(kind: str, toxicity: float = 1.0, **attributes: int) -> tuple[Toxic, ...]:
    """Disturb both streams alike."""
    return tuple(Toxic(kind, stream, attributes, toxicity) for stream in BOTH)


def latency(ms: int, jitter_ms: int = 0, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """Delay what is sent, by `ms` ± `jitter_ms` each way."""
    return on_both("latency", toxicity, latency=ms, jitter=jitter_ms)


def bandwidth(kb_per_s: int, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """Let no more through than this, each way and connection."""
    return on_both("bandwidth", toxicity, rate=kb_per_s)


def slow_close(ms: int, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """Pass on the end of a connection only after `ms`."""
    return on_both("slow_close", toxicity, delay=ms)


def timeout(ms: int, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """Let nothing through, and end the connection after `ms`; 0: never."""
    return on_both("timeout", toxicity, timeout=ms)


def slicer(size: int, variation: int, delay_us: int, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """Cut what is sent into pieces of `size` ± `variation` bytes, `delay_us` microseconds apart."""
    return on_both("slicer", toxicity, average_size=size, size_variation=variation, delay=delay_us)


def limit_data(size: int, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """End each connection when `size` bytes have passed one way."""
    return on_both("limit_data", toxicity, bytes=size)


def reset_peer(ms: int = 0, toxicity: float = 1.0) -> tuple[Toxic, ...]:
    """End each connection `ms` after data came, with a reset."""
    return on_both("reset_peer", toxicity, timeout=ms)
