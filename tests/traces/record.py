"""Make traces of what random schedules find: search, minimize, write.

python -m tests.traces.record MUTANT --name FILE    the shortest trace that shows a mutant, of some findings
python -m tests.traces.record --seed 4711 --name F  of a seed that the real code fails
python -m tests.traces.record --again FILE ...      mark, name and end the steps anew, after a wanted change
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from tests.replication.mutants import MUTANTS, Mutant, violation_of
from tests.replication.schedule import run
from tests.replication.steps import Step, describe, do, parse
from tests.replication.world import NODES, World
from tests.traces.player import FOLDER, ONLY_MUTANT, Trace, end_of, violation_in

Build = Callable[[], World]
SETTLE = Step("settle")


def minimize(build: Build, steps: Sequence[Step], number: str) -> list[Step]:
    """Steps that violate this invariant, of which no one and no two can be left out (ddmin, then pairs); or none."""
    with_settle = number == "I10"

    def try_out(candidate: Iterable[Step]) -> list[Step] | None:
        world = build()
        violation = violation_in(world, candidate, with_settle=with_settle)
        if violation is None or violation.number != number:
            return None
        return [step for step in world.trace if step != SETTLE]

    best = try_out(step for step in steps if step != SETTLE)
    if best is None:
        return []
    while True:
        size = len(best)
        best = _simplify(_without_chunks(best, try_out), try_out)
        best = _without_pairs(best, try_out)
        if len(best) == size:
            return best


Try = Callable[[Iterable[Step]], list[Step] | None]


def _without_chunks(steps: list[Step], try_out: Try) -> list[Step]:
    width = max(1, len(steps) // 2)
    while True:
        i, before = 0, len(steps)
        while i < len(steps):
            fewer = try_out(steps[:i] + steps[i + width :])
            if fewer is None or len(fewer) >= len(steps):
                i += width
            else:
                steps = fewer
        if width == 1 and len(steps) == before:
            return steps
        width = max(1, width // 2)


def _without_pairs(steps: list[Step], try_out: Try) -> list[Step]:
    for i in range(len(steps)):
        for j in range(i + 1, len(steps)):
            fewer = try_out(steps[:i] + steps[i + 1 : j] + steps[j + 1 :])
            if fewer is not None and len(fewer) < len(steps):
                return fewer
    return steps


def _simplify(steps: list[Step], try_out: Try) -> list[Step]:
    """Without options where it does as well."""
    for i, step in enumerate(steps):
        if step.options:
            plain = try_out([*steps[:i], step._replace(options=()), *steps[i + 1 :]])
            if plain is not None and len(plain) <= len(steps):
                return _simplify(plain, try_out)
    return steps


def written(steps: Iterable[Step]) -> tuple[list[str], dict[str, object]]:
    """The steps in words as they go on the real code, with those marked that only the mutant can do; and the end."""
    world = World()
    texts: list[str] = []
    for step in steps:
        text = describe(world, step)
        texts.append(text if do(world, step) else f"{ONLY_MUTANT}{step}")
    return texts, end_of(world)


def find(build: Build, wanted: Callable[[str], bool], seeds: Iterable[int], most: int) -> tuple[list[Step], str, int]:
    """The shortest minimized schedule of the first `most` findings; the invariant; the seed."""
    found: list[tuple[list[Step], str, int]] = []
    for seed in seeds:
        world = build()
        violation = violation_of(lambda world=world, seed=seed: run(world, seed))  # type: ignore[misc]
        if violation is not None and wanted(violation.number) and _by_steps(world, violation.number):
            started = [Step("exchange", NODES), *world.trace]
            shortest = [minimize(build, steps, violation.number) for steps in (world.trace, started)]
            found.append((min(filter(None, shortest), key=len), violation.number, seed))
            print(f"seed {seed}: {violation} ({len(found[-1][0])} steps)", file=sys.stderr)
            if len(found) >= most:
                break
    if not found:
        raise SystemExit("no seed shows it")
    return min(found, key=lambda one: len(one[0]))


def _by_steps(world: World, number: str) -> bool:
    """Not in the middle of a fair run, which is no single action."""
    return number == "I10" or world.trace[-1].verb != "settle"


def again(trace: Trace) -> Trace:
    """The same steps with their marks, kinds and end as they are now."""
    texts, end = written(parse(text.removeprefix(ONLY_MUTANT))[0] for text in trace.steps)
    return replace(trace, steps=texts, end=end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutant", nargs="?")
    parser.add_argument("--seed", type=int, help="of the real code")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--most", type=int, default=5, help="findings to choose from")
    parser.add_argument("--invariant", help="only violations of this one")
    parser.add_argument("--name", help="file to write, without .json; else it is printed")
    parser.add_argument("--again", nargs="+", metavar="FILE")
    options = parser.parse_args()
    if options.again:
        for name in options.again:
            path = FOLDER / f"{name}.json"
            again(Trace.load(path)).save(path)
        return
    mutant = next((each for each in MUTANTS if each.name == options.mutant), None)
    if mutant is None and options.seed is None:
        raise SystemExit("name a mutant, or a seed of the real code; mutants: " + ", ".join(m.name for m in MUTANTS))
    _record(mutant, options)


def _record(mutant: Mutant | None, options: argparse.Namespace) -> None:
    def wanted(number: str) -> bool:
        return number == options.invariant if options.invariant else mutant is None or mutant.shows(number)

    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    with mutant.apply() if mutant is not None else nullcontext(World) as build:
        steps, number, seed = find(build, wanted, seeds, options.most)
    if mutant is None:  # on the real code the end is what the steps violate, until that is mended
        texts, end = [str(step) for step in steps], dict[str, object]()
    else:
        texts, end = written(steps)
    trace = Trace(
        name=options.name or "",
        rule=mutant.rule if mutant is not None else "",
        shows="",
        source=f"found by random schedule {seed}, minimized" + ("" if mutant is not None else f"; violated {number}"),
        mutants={mutant.name: number} if mutant is not None else {},
        steps=texts,
        end=end,
    )
    if options.name:
        trace.save(FOLDER / f"{options.name}.json")
    else:
        print("\n".join(texts), number, end, sep="\n")


if __name__ == "__main__":
    main()
