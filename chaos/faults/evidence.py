"""Did a disturbance of links hit anything? Judged by what passed before and during it. Pure."""

from collections.abc import Mapping
from typing import TypeAlias

from penstock.chaos.faults.base import Hit
from penstock.chaos.links import Link
from penstock.chaos.traffic import Traffic

Snapshot: TypeAlias = Mapping[Link, Traffic]


def of_cut(before: Snapshot, cut: Snapshot, at_end: Snapshot, healed: Snapshot) -> Hit:
    """Judge a cut by the traffic before it, as soon as it was there, at its end and when it was healed.

    It hit where connections were open when it came, or bytes came in that did not go on. Where Toxiproxy runs elsewhere
    only the connections are known that ended with the cut, by the bytes that they had carried.
    """
    if not connections_known(before):
        ended = _counted(healed) - _counted(before)
        return Hit(ended > 0, f"connections that had carried {max(ended, 0)} bytes ended with it")
    opened = _new(before, at_end)
    held = sum(max(at_end[link].upstream.received - cut[link].upstream.received, 0) for link in cut)
    were_open = _open(before)
    evidence = (
        f"{were_open} connections were open when it came, {_ended(before, cut)} ended at once,"
        f" {opened} were opened into it; {held} bytes were sent into it"
    )
    return Hit(were_open > 0 or opened > 0 or held > 0, evidence)


def of_breaks(before: Snapshot, at_end: Snapshot, known_ended: int = 0) -> Hit:
    """Judge what ends connections, again and again. `known_ended`: those that were seen to end meanwhile."""
    if not connections_known(before):
        ended = _counted(at_end) - _counted(before)
        return Hit(ended > 0, f"connections that had carried {max(ended, 0)} bytes ended under it")
    ended = max(known_ended, _ended(before, at_end))
    return Hit(ended > 0, f"{ended} connections ended, {_passed(before, at_end)} bytes passed")


def of_strain(before: Snapshot, at_end: Snapshot) -> Hit:
    """Judge what slows bytes down: some must have passed."""
    passed = _passed(before, at_end)
    if not connections_known(before):
        return Hit(passed > 0, f"{passed} bytes had passed connections that ended; of open ones nothing is known here")
    return Hit(passed > 0, f"{passed} bytes passed {_open(at_end)} open connections and those that ended")


def ended_between(before: Snapshot, after: Snapshot) -> int:
    """Count the connections that were open and are not any more; 0 where they are not known."""
    return _ended(before, after)


def connections_known(snapshot: Snapshot) -> bool:
    """Say whether open connections were counted, not ended ones alone."""
    return all(traffic.dialled_from is not None for traffic in snapshot.values())


def _open(snapshot: Snapshot) -> int:
    return sum(len(traffic.dialled_from or ()) for traffic in snapshot.values())


def _ended(before: Snapshot, after: Snapshot) -> int:
    return sum(len((before[link].dialled_from or frozenset()) - (after[link].dialled_from or set())) for link in before)


def _new(before: Snapshot, after: Snapshot) -> int:
    return _ended(after, before)


def _passed(before: Snapshot, after: Snapshot) -> int:
    """Count what sources sent and got."""
    sent = sum(max(after[link].upstream.received - before[link].upstream.received, 0) for link in before)
    return sent + sum(max(after[link].downstream.sent - before[link].downstream.sent, 0) for link in before)


def _counted(snapshot: Snapshot) -> int:
    return sum(traffic.upstream.received + traffic.downstream.received for traffic in snapshot.values())
