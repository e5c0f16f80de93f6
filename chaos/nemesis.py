"""Performs a plan of faults and records what it did.

Every fault that was injected is healed, whatever happens: at its time, when another fault fails, when the run is
cancelled. A fault that cannot be done here is recorded as `skipped`, one that fails as `failed`, both with the reason
as `detail`; the others go on.

Waves (faults that overlap, `plan.waves`) keep the quiet time between them: where one took longer than planned, all
later ones come later. A fault's length counts from when it is there.

Majority: a fault says whether a majority and min_insync replicas of each partition go on under it alone. Where the
nodes of all faults under way, taken together, could break that, none of them may claim it: the newest has
`majority: false` in its `injected` entry, and each earlier one that claimed it gets a second `injected` entry, the same
but for `majority: false`, which holds until it is healed, even where the other one is healed first. So the latest
`injected` entry of an id counts, from its time on.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.chaos.ending import to_the_end
from penstock.chaos.faults.base import Effect, Fault, Injected, Site
from penstock.chaos.faults.targets import majority_without
from penstock.chaos.history import Recorder
from penstock.chaos.plan import Plan, Planned, waves

PROCESS = "nemesis"
INJECT_TIMEOUT_S = 180.0
"""An injection that takes longer has failed."""
HEAL_TIMEOUT_S = 300.0
"""A healing that takes longer has failed."""


@dataclass(slots=True)
class _Active:
    """A fault that is there and not being healed."""

    planned: Planned
    injected: Injected
    effect: Effect
    """As it was recorded last."""


class Nemesis:
    """One performance of one plan. Use from one event loop."""

    def __init__(self, site: Site, plan: Plan, recorder: Recorder, faults: Mapping[str, Fault]) -> None:
        self._site = site
        self._plan = plan
        self._recorder = recorder
        self._faults = faults
        self._active: dict[int, _Active] = {}
        """By the planned id, in the order of injection."""

    async def run(self) -> None:
        """Perform the plan, its times counted from now by the recorder's clock. Afterwards all is healed.

        Raises nothing of the faults'. Cancelled, it heals what is there before it ends.
        """
        began = self._recorder.now()
        try:
            for wave in waves(self._plan):
                await self._until(began + wave[0].at_s)
                late_s = self._recorder.now() - began - wave[0].at_s
                async with asyncio.TaskGroup() as group:
                    for planned in wave:
                        group.create_task(self._perform(planned, began + late_s))
                took_s = self._recorder.now() - began
                began += max(0.0, took_s - max(planned.end_s for planned in wave))
        finally:
            await self.heal_all()

    async def heal_all(self) -> None:
        """Heal what is there, also where this is cancelled meanwhile."""
        await to_the_end(self._heal_these(list(self._active)))

    async def _heal_these(self, numbers: list[int]) -> None:
        await asyncio.gather(*(self._heal(number) for number in numbers))

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self._recorder.now()))

    async def _perform(self, planned: Planned, began: float) -> None:
        await self._until(began + planned.at_s)
        # Not cancelled half way: what an injection has begun must be known to be healed.
        if not await to_the_end(self._inject(planned)):
            return
        try:
            await self._until(self._recorder.now() + planned.duration_s)
        finally:
            await to_the_end(self._heal(planned.id))

    async def _inject(self, planned: Planned) -> bool:
        try:
            fault = self._faults[planned.fault]
            if reason := fault.missing(self._site):
                self._note(planned, "skipped", detail=reason)
                return False
            self._note(planned, "inject", params=planned.params)
            async with asyncio.timeout(INJECT_TIMEOUT_S):
                injected = await fault.inject(self._site, planned.params)
        except Exception as error:  # noqa: BLE001  a fault's defect is recorded; it must not end the run
            self._failed(planned, "injected", error)
            return False
        self._add(planned, injected)
        return True

    def _add(self, planned: Planned, injected: Injected) -> None:
        """Record that it is there. No await: entries and `_active` tell the same."""
        earlier = list(self._active.values())
        active = _Active(planned, injected, injected.effect)
        self._active[planned.id] = active
        breaks = bool(earlier) and self._break_majority([*earlier, active])
        if breaks:
            active.effect = replace(active.effect, majority=False)
        self._injected(active)
        for other in earlier:
            if breaks and other.effect.majority:
                other.effect = replace(other.effect, majority=False)
                self._injected(other)

    def _break_majority(self, together: list[_Active]) -> bool:
        hit = {node_id for active in together for node_id in active.effect.nodes}
        return not majority_without(self._site.cluster.voters, hit)

    async def _heal(self, number: int) -> None:
        active = self._active.pop(number, None)
        if active is None:
            return
        self._note(active.planned, "heal")
        try:
            async with asyncio.timeout(HEAL_TIMEOUT_S):
                hit = await active.injected.heal()
        except Exception as error:  # noqa: BLE001  as in _inject
            self._failed(active.planned, "healed", error)
            return
        self._note(active.planned, "healed", hit=hit.hit, evidence=hit.evidence)

    def _injected(self, active: _Active) -> None:
        effect = active.effect
        self._note(
            active.planned,
            "injected",
            detail=effect.detail,
            nodes=effect.nodes,
            majority=effect.majority,
            cut_hosts=effect.cut_hosts,
        )

    def _failed(self, planned: Planned, not_done: str, error: Exception) -> None:
        self._note(planned, "failed", detail=f"not {not_done}: {type(error).__name__}: {error}")

    def _note(self, planned: Planned, phase: str, **fields: Any) -> None:
        self._recorder.note(PROCESS, "fault", id=planned.id, fault=planned.fault, phase=phase, **fields)
