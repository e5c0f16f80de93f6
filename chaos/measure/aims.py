"""What a run has to reach besides being valid, and whether it did. Pure.

A cluster that acknowledges nothing is not safe, it is down.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from penstock.chaos.measure.recovery import WANTED_S, Recovery
from penstock.chaos.measure.windows import Episode, Fault, Status
from penstock.chaos.measure.writes import Share

WANTED_SHARE = 0.9
MIN_JUDGED = 20
"""Of fewer operations no share is taken."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One of them."""

    name: str
    measured: float | None
    wanted: float
    unit: str
    """`share` (0 to 1; at least `wanted`) or `s` (at most `wanted`)."""
    met: bool | None
    """None: not measured."""
    detail: str = ""
    """Which fault it was, or why nothing was measured."""

    def to_json(self) -> dict[str, Any]:
        """Give the fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Availability:
    """The operations of one fault's window that are judged."""

    judged: Share
    met: bool | None
    """None: too few to say."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the fields."""
        return {**self.judged.to_json(), "met": self.met, "note": self.note}


def availability_of(fault: Fault, judged: Share) -> Availability:
    """Judge what was counted within the fault's window."""
    share = judged.share
    if share is not None and judged.asked >= MIN_JUDGED:
        return Availability(judged, share >= WANTED_SHARE)
    if fault.status is Status.SKIPPED:
        return Availability(judged, None, "not injected")
    if fault.injected is None:
        return Availability(judged, None, "injection failed")
    if fault.no_majority_from is not None:
        return Availability(judged, None, "no majority")
    return Availability(judged, None, f"only {judged.asked} operations judged")


def aims_of(
    overall: Share, served: Iterable[tuple[Fault, Availability]], back: Iterable[tuple[Episode, Recovery]]
) -> tuple[Aim, ...]:
    """Sum up: all judged operations, the worst fault's, and the slowest recovery."""
    return (_overall(overall), _worst_share(served), _slowest(back))


def _overall(overall: Share) -> Aim:
    name = "Acknowledged while a majority was reachable"
    share = overall.share
    if share is None:
        return Aim(name, None, WANTED_SHARE, "share", None, "no operation is judged")
    return Aim(name, share, WANTED_SHARE, "share", share >= WANTED_SHARE, f"of {overall.asked} operations")


def _worst_share(served: Iterable[tuple[Fault, Availability]]) -> Aim:
    name = "The same during the worst fault"
    shares = [(found.judged.share or 0.0, fault) for fault, found in served if found.met is not None]
    if not shares:
        return Aim(name, None, WANTED_SHARE, "share", None, "no fault with operations to judge")
    share, worst = min(shares, key=lambda pair: pair[0])
    return Aim(name, share, WANTED_SHARE, "share", share >= WANTED_SHARE, f"fault {worst.id}, {worst.fault}")


def _slowest(back: Iterable[tuple[Episode, Recovery]]) -> Aim:
    name = "Throughput back after the slowest heal"
    measured = [(episode, found) for episode, found in back if found.met is not None]
    if not measured:
        return Aim(name, None, WANTED_S, "s", None, "no recovery could be measured")
    episode, slowest = max(measured, key=lambda pair: (pair[1].seconds is None, pair[1].seconds or 0.0))
    which = " + ".join(f"{fault.id}, {fault.fault}" for fault in episode.faults)
    detail = f"fault {which}{': ' + slowest.note if slowest.note else ''}"
    return Aim(name, slowest.seconds, WANTED_S, "s", bool(slowest.met), detail)
