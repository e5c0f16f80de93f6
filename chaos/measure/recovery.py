"""How long after a heal is throughput back? Pure.

Throughput is the number of records' writes (sends and appends) acknowledged in a second. *Before* is the median of up
to BEFORE_S whole seconds before the injection, without those in which another fault was there or not yet recovered
from. Throughput is *back* with the first whole second after the heal that has at least BACK_SHARE of that, if so have
the median of the SUSTAINED_S seconds from it on and the median of all seconds from it on (until the next fault, the end
of the load, or AFTER_S after the heal). Medians on both sides: a stalled second of a busy machine, or a burst of what
had piled up, counts as one second and no more.

Faults that overlap are one disturbance: from the first injection to the last heal.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isinf
from statistics import median

from penstock.chaos.measure.series import BIN_S
from penstock.chaos.measure.windows import Episode

BEFORE_S = 30.0
AFTER_S = 30.0
SUSTAINED_S = 5.0
BACK_SHARE = 0.9
WANTED_S = 10.0
"""Throughput should be back within this."""
MIN_BINS = 5
"""Fewer undisturbed seconds make no median."""
MIN_BEFORE = 5.0
"""Fewer acknowledgements a second say nothing."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found for one episode."""

    seconds: float | None
    """From the heal; None where it was not seen."""
    met: bool | None
    """Within WANTED_S? None where it could not be measured."""
    note: str = ""
    """Why it was not measured, or how long was watched in vain."""
    before: float | None = None
    """Acknowledgements a second, median."""
    after: float | None = None
    """The same from the recovery on; where there was none, from the heal on."""


def recoveries(acks: Sequence[float], load: tuple[float, float], found: Sequence[Episode]) -> list[Recovery]:
    """Measure each episode. `acks`: times of acknowledgement, ascending; `load`: from when to when clients wrote."""
    results: list[Recovery] = []
    free_from = load[0]
    for index, episode in enumerate(found):
        limits = [episode.healed + AFTER_S, load[1], *(later.start for later in found[index + 1 : index + 2])]
        result = _recovery(acks, free_from, episode, min(limits))
        results.append(result)
        free_from = episode.healed + (WANTED_S if result.seconds is None else result.seconds)
    return results


def _recovery(acks: Sequence[float], free_from: float, episode: Episode, until: float) -> Recovery:
    usable = int((episode.start - max(free_from, episode.start - BEFORE_S)) // BIN_S)
    if usable < MIN_BINS:
        return _unmeasured(f"fewer than {MIN_BINS} undisturbed seconds before it")
    before = median(_bins(acks, episode.start - usable * BIN_S, usable))
    if before < MIN_BEFORE:
        return _unmeasured(f"only {before:g} acknowledgements a second before it", before)
    if isinf(episode.healed):
        return _unmeasured("never healed", before)
    watched = max(0.0, until - episode.healed)
    bins = _bins(acks, episode.healed, int(watched // BIN_S))
    return _back(bins, before, watched)


def _back(bins: list[int], before: float, watched: float) -> Recovery:
    sustained = int(SUSTAINED_S / BIN_S)
    for first in range(len(bins) - sustained + 1):
        level = min(bins[first], median(bins[first : first + sustained]), median(bins[first:]))
        if level >= BACK_SHARE * before:
            seconds = first * BIN_S
            return Recovery(seconds, seconds <= WANTED_S, "", before, median(bins[first:]))
    if watched < WANTED_S + SUSTAINED_S + BIN_S:
        return _unmeasured(f"not seen within the {watched:.1f} s until the next fault or the end of the load", before)
    return Recovery(None, met=False, note=f"not within {watched:.0f} s", before=before, after=median(bins))


def _unmeasured(note: str, before: float | None = None) -> Recovery:
    return Recovery(None, None, note, before)


def _bins(acks: Sequence[float], start: float, count: int) -> list[int]:
    edges = [bisect_left(acks, start + index * BIN_S) for index in range(count + 1)]
    return [later - earlier for earlier, later in pairwise(edges)]
